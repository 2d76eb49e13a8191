-- name: pruned
-- The position at which the log begins.
SELECT pruned FROM audit_log;

-- name: first_difference
-- Replays every command's transitions, from what it was in the snapshot at which the log begins, and compares with what it is now:
-- versions without a gap, each once; and the last of them says status, agent, type and times, the last that set them the parameters.
-- Parameters that an erasure names are none. The first command that differs, and in what.
WITH erased AS (
  -- As the record of an erasure says, which is in the log; its row in audit_erasures only leads to it
  SELECT DISTINCT a.record_id FROM audit_erasures a JOIN update_logs u ON u.id = a.logged_id AND u.created_at = a.logged_at
  WHERE u.kind = 'erasure' AND u.metadata ->> 'record_id' = a.record_id::text AND u.metadata -> 'fields' ? 'params'
), told AS (
  SELECT u.command_id, u.version, u.agent_id, u.command_type, u.result, u.sent_at, u.completed_at, u.id AS record_id,
    CASE WHEN e.record_id IS NULL THEN u.params ELSE '{}' END AS params
  FROM update_logs u LEFT JOIN erased e ON e.record_id = u.id
  WHERE u.command_id IS NOT NULL AND u.version IS NOT NULL AND (u.kind = 'transition' OR (u.kind = 'import' AND u.version = 1))
    -- What is being pruned is in the snapshot already
    AND NOT EXISTS (SELECT FROM audit_entries p WHERE p.record_id = u.id AND p.position < :pruned::bigint)
), counted AS (
  SELECT command_id, count(*) AS records, count(DISTINCT version) AS versions, min(version) AS first, max(version) AS last FROM told GROUP BY command_id
), newest AS (
  SELECT DISTINCT ON (command_id) * FROM told ORDER BY command_id, version DESC
), parameters AS (
  SELECT DISTINCT ON (command_id) command_id, params FROM told WHERE params IS NOT NULL ORDER BY command_id, version DESC
), meant AS (
  SELECT * FROM unnest(:results::text[], :statuses::text[]) AS meant (result, status)
), known AS (
  SELECT coalesce(n.command_id, b.command_id) AS command_id, n.record_id, coalesce(n.version, b.version) AS version,
    coalesce(m.status, n.result, b.status) AS status, coalesce(n.agent_id, b.agent_id) AS agent_id,
    coalesce(n.command_type, b.command_type) AS command_type,
    CASE WHEN n.command_id IS NULL THEN b.sent_at ELSE n.sent_at END AS sent_at,
    CASE WHEN n.command_id IS NULL THEN b.completed_at ELSE n.completed_at END AS completed_at,
    coalesce(b.version, 0) AS base, k.first, coalesce(k.last, b.version) AS last, coalesce(k.records, 0) AS records,
    coalesce(k.versions, 0) AS versions, p.params, b.params_salt, b.params_hash
  FROM newest n FULL JOIN (SELECT * FROM audit_snapshot_states WHERE snapshot = :pruned::bigint) b ON b.command_id = n.command_id
  LEFT JOIN counted k ON k.command_id = n.command_id LEFT JOIN parameters p ON p.command_id = n.command_id LEFT JOIN meant m ON m.result = n.result
), compared AS (
  SELECT coalesce(c.id, k.command_id) AS command_id, k.record_id, CASE
    WHEN c.id IS NULL THEN 'its records are there, and the command is not'
    WHEN k.command_id IS NULL THEN 'the command is there, and no record of it'
    WHEN k.first <> k.base + 1 OR k.versions <> k.last - k.base THEN 'a version is missing: ' || k.base + k.versions || ' of ' || k.last || ' are recorded'
    WHEN k.records <> k.versions THEN 'a version is recorded twice'
    WHEN c.version <> k.version THEN 'its version is ' || c.version || ', and the last that was recorded ' || k.version
    WHEN c.status <> k.status THEN 'its status is ' || c.status || ', and was recorded as ' || k.status
    WHEN c.agent_id <> k.agent_id THEN 'its agent is another than was recorded'
    WHEN c.command_type <> k.command_type THEN 'its type is ' || c.command_type || ', and was recorded as ' || k.command_type
    WHEN c.sent_at IS DISTINCT FROM k.sent_at THEN 'sent_at is another than was recorded'
    WHEN c.completed_at IS DISTINCT FROM k.completed_at THEN 'completed_at is another than was recorded'
    WHEN NOT coalesce(c.params = k.params, sha256(k.params_salt || convert_to(c.params::text, 'UTF8')) = k.params_hash, false) THEN 'its parameters are others than were recorded'
  END AS difference, coalesce(c.created_at, now()) AS created_at
  FROM agent_commands c FULL JOIN known k ON k.command_id = c.id
)
SELECT command_id, record_id, difference FROM compared WHERE difference IS NOT NULL ORDER BY created_at, command_id LIMIT 1;

-- name: commands
-- How many commands there are.
SELECT count(*) FROM agent_commands;

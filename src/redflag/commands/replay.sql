-- name: pruned
-- The position at which the log begins.
SELECT pruned FROM audit_log;

-- name: first_difference
-- Replays every command's transitions, from what it was in the snapshot at which the log begins, and compares with what it is now:
-- versions without a gap, each once; and the last of them says status, agent, type and times, the last that set them the parameters.
-- Parameters that an erasure names are none. The first command that differs, and in what.
WITH erased AS (
  -- As the record of an erasure says, which is in the log; its row in audit_erasures only leads to it
  SELECT a.record_id FROM audit_erasures a JOIN update_logs u ON u.id = a.logged_id AND u.created_at = a.logged_at
  WHERE u.kind = 'erasure' AND u.metadata ->> 'record_id' = a.record_id::text AND u.metadata -> 'fields' ? 'params'
), told AS (
  SELECT u.command_id, u.version, u.agent_id, u.command_type, u.result, u.sent_at, u.completed_at, u.id AS record_id,
    -- Not a join, whose way the planner would choose by a guess at how few there are
    CASE WHEN u.id IN (SELECT record_id FROM erased) THEN '{}' ELSE u.params END AS params
  FROM update_logs u
  WHERE u.command_id IS NOT NULL AND u.version IS NOT NULL AND (u.kind = 'transition' OR (u.kind = 'import' AND u.version = 1))
    -- What is being pruned is in the snapshot already
    AND (:pruned::bigint = 0 OR NOT EXISTS (SELECT FROM audit_entries p WHERE p.record_id = u.id AND p.position < :pruned::bigint))
), ordered AS (
  SELECT *, lag(version) OVER (PARTITION BY command_id ORDER BY version DESC) AS next FROM told
), replayed AS (
  -- One pass in one order: joins of one result for each question take twice the time
  SELECT command_id, count(*) AS records, count(*) FILTER (WHERE next IS DISTINCT FROM version) AS versions, min(version) AS first, max(version) AS last,
    any_value(record_id) FILTER (WHERE next IS NULL) AS record_id, any_value(result) FILTER (WHERE next IS NULL) AS result,
    any_value(agent_id) FILTER (WHERE next IS NULL) AS agent_id, any_value(command_type) FILTER (WHERE next IS NULL) AS command_type,
    any_value(sent_at) FILTER (WHERE next IS NULL) AS sent_at, any_value(completed_at) FILTER (WHERE next IS NULL) AS completed_at,
    (array_agg(params ORDER BY version DESC) FILTER (WHERE params IS NOT NULL))[1] AS params
  FROM ordered GROUP BY command_id
), known AS (
  SELECT coalesce(c.id, n.command_id, b.command_id) AS command_id, n.record_id, c.created_at,
    c.id IS NOT NULL AS there, n.command_id IS NOT NULL OR b.command_id IS NOT NULL AS told,
    coalesce(b.version, 0) AS base, n.first, coalesce(n.last, b.version) AS last, coalesce(n.records, 0) AS records, coalesce(n.versions, 0) AS versions,
    c.version, c.status, coalesce((:statuses::text[])[array_position(:results::text[], n.result)], n.result, b.status) AS told_status,
    c.agent_id, coalesce(n.agent_id, b.agent_id) AS told_agent_id, c.command_type, coalesce(n.command_type, b.command_type) AS told_type,
    c.sent_at, CASE WHEN n.command_id IS NULL THEN b.sent_at ELSE n.sent_at END AS told_sent_at,
    c.completed_at, CASE WHEN n.command_id IS NULL THEN b.completed_at ELSE n.completed_at END AS told_completed_at,
    c.params, n.params AS told_params, b.params_salt, b.params_hash
  FROM agent_commands c FULL JOIN replayed n ON n.command_id = c.id
  FULL JOIN (SELECT * FROM audit_snapshot_states WHERE snapshot = :pruned::bigint) b ON b.command_id = coalesce(c.id, n.command_id)
), compared AS (
  SELECT command_id, record_id, coalesce(created_at, now()) AS created_at, CASE
    WHEN NOT there THEN 'its records are there, and the command is not'
    WHEN NOT told THEN 'the command is there, and no record of it'
    WHEN first <> base + 1 OR versions <> last - base THEN 'a version is missing: ' || base + versions || ' of ' || last || ' are recorded'
    WHEN records <> versions THEN 'a version is recorded twice'
    WHEN version <> last THEN 'its version is ' || version || ', and the last that was recorded ' || last
    WHEN status <> told_status THEN 'its status is ' || status || ', and was recorded as ' || told_status
    WHEN agent_id <> told_agent_id THEN 'its agent is another than was recorded'
    WHEN command_type <> told_type THEN 'its type is ' || command_type || ', and was recorded as ' || told_type
    WHEN sent_at IS DISTINCT FROM told_sent_at THEN 'sent_at is another than was recorded'
    WHEN completed_at IS DISTINCT FROM told_completed_at THEN 'completed_at is another than was recorded'
    WHEN NOT coalesce(params = told_params, sha256(params_salt || convert_to(params::text, 'UTF8')) = params_hash, false) THEN 'its parameters are others than were recorded'
  END AS difference
  FROM known
)
SELECT command_id, record_id, difference FROM compared WHERE difference IS NOT NULL ORDER BY created_at, command_id LIMIT 1;

-- name: commands
-- How many commands there are.
SELECT count(*) FROM agent_commands;

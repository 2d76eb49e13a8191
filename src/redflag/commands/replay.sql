-- name: first_difference
-- Replays every command's transitions and compares with what it is now: versions without a gap, each once; and the last of them
-- says status, agent, type and times, the last that set them the parameters. The first command that differs, and in what.
WITH told AS (
  SELECT command_id, version, agent_id, command_type, result, sent_at, completed_at, params, id AS record_id
  FROM update_logs WHERE command_id IS NOT NULL AND version IS NOT NULL AND (kind = 'transition' OR (kind = 'import' AND version = 1))
), counted AS (
  SELECT command_id, count(*) AS records, count(DISTINCT version) AS versions, min(version) AS first, max(version) AS last FROM told GROUP BY command_id
), newest AS (
  SELECT DISTINCT ON (command_id) * FROM told ORDER BY command_id, version DESC
), parameters AS (
  SELECT DISTINCT ON (command_id) command_id, params FROM told WHERE params IS NOT NULL ORDER BY command_id, version DESC
), meant AS (
  SELECT * FROM unnest(:results::text[], :statuses::text[]) AS meant (result, status)
), compared AS (
  SELECT coalesce(c.id, n.command_id) AS command_id, n.record_id, CASE
    WHEN c.id IS NULL THEN 'its records are there, and the command is not'
    WHEN n.command_id IS NULL THEN 'the command is there, and no record of it'
    WHEN k.first <> 1 OR k.versions <> k.last THEN 'a version is missing: ' || k.versions || ' of ' || k.last || ' are recorded'
    WHEN k.records <> k.versions THEN 'a version is recorded twice'
    WHEN c.version <> n.version THEN 'its version is ' || c.version || ', and the last that was recorded ' || n.version
    WHEN c.status IS DISTINCT FROM m.status THEN 'its status is ' || c.status || ', and was recorded as ' || coalesce(m.status, n.result)
    WHEN c.agent_id <> n.agent_id THEN 'its agent is another than was recorded'
    WHEN c.command_type <> n.command_type THEN 'its type is ' || c.command_type || ', and was recorded as ' || n.command_type
    WHEN c.sent_at IS DISTINCT FROM n.sent_at THEN 'sent_at is another than was recorded'
    WHEN c.completed_at IS DISTINCT FROM n.completed_at THEN 'completed_at is another than was recorded'
    WHEN c.params IS DISTINCT FROM p.params THEN 'its parameters are others than were recorded'
  END AS difference, coalesce(c.created_at, now()) AS created_at
  FROM agent_commands c FULL JOIN newest n ON n.command_id = c.id
  LEFT JOIN counted k ON k.command_id = n.command_id LEFT JOIN parameters p ON p.command_id = n.command_id LEFT JOIN meant m ON m.result = n.result
)
SELECT command_id, record_id, difference FROM compared WHERE difference IS NOT NULL ORDER BY created_at, command_id LIMIT 1;

-- name: commands
-- How many commands there are.
SELECT count(*) FROM agent_commands;

-- name: policy
-- How long records are kept, and how pruning stands.
SELECT r.keep, extract(epoch FROM r.keep)::double precision AS keep_seconds, r.looked_at, r.last_error, r.last_error_at,
  r.claimed_until > now() AS pruning, l.pruned,
  (SELECT recorded_at FROM audit_entries WHERE position >= l.pruned ORDER BY position LIMIT 1) AS oldest
FROM log_retention r, audit_log l;

-- name: set_policy
-- How long records are kept from now on; NULL: for ever.
UPDATE log_retention SET keep = :keep::interval, looked_at = NULL, act = :act;

-- name: bound
-- Before when records are past their retention; NULL: none ever is.
SELECT clock_timestamp() - keep FROM log_retention;

-- name: is_due
-- Whether somebody should prune now: once a day, and an hour after what did not get to its end.
SELECT coalesce(claimed_until < now(), true) AND (keep IS NOT NULL AND coalesce(looked_at < now() - interval '1 day', true)
  OR coalesce(looked_at < now() - interval '1 hour', true)
    AND EXISTS (SELECT FROM audit_snapshots s, audit_log l WHERE s.position > l.pruned OR EXISTS (SELECT FROM audit_entries WHERE position < l.pruned)))
FROM log_retention;

-- name: origin
-- What the log is called.
SELECT origin FROM audit_log;

-- name: claim
-- Whoever gets this prunes, until the time is over; who has it may have it for longer.
UPDATE log_retention SET claimed_by = :who, claimed_until = now() + :lease::interval
WHERE claimed_until IS NULL OR claimed_until < now() OR claimed_by = :who RETURNING id;

-- name: release
-- Done for now. What went wrong is tried again in an hour.
UPDATE log_retention SET claimed_by = NULL, claimed_until = NULL, last_error = :error::text,
  last_error_at = CASE WHEN :error::text IS NULL THEN last_error_at ELSE now() END,
  looked_at = CASE WHEN :error::text IS NULL THEN now() ELSE now() - interval '23 hours' END
WHERE claimed_by = :who;

-- name: extent
-- From where on there is something to prune, and up to where a checkpoint proves it.
SELECT pruned AS first, coalesce((SELECT max(size) FROM audit_checkpoints), 0) AS signed FROM audit_log;

-- name: first_kept
-- The first position that is not before the time.
SELECT position FROM audit_entries WHERE position >= :first AND position < :end AND recorded_at >= :before::timestamptz ORDER BY position LIMIT 1;

-- name: first_held
-- The first position that a legal hold covers, and which.
SELECT e.position, legal_hold_on(u.created_at, u.agent_id, u.command_id, u.actor) AS hold
FROM audit_entries e JOIN update_logs u ON u.id = e.record_id AND u.created_at = e.recorded_at
WHERE EXISTS (SELECT FROM legal_holds WHERE released_at IS NULL) AND e.position >= :first AND e.position < :end
  AND legal_hold_on(u.created_at, u.agent_id, u.command_id, u.actor) IS NOT NULL
ORDER BY e.position LIMIT 1;

-- name: first_unsent
-- The forwarder that is the furthest behind, if it has not sent everything before a position.
SELECT name, position FROM log_forwarders WHERE enabled AND removed_at IS NULL AND position < :end ORDER BY position LIMIT 1;

-- name: times
-- When the records of a range of positions were recorded, the earliest and the latest.
SELECT min(recorded_at) AS since, max(recorded_at) AS until FROM audit_entries WHERE position >= :first AND position < :end;

-- name: take_states
-- What every command was at a position: the states of the last snapshot, and what the records since then made of them. Archived
-- are those that had ended, and of which no later transition and no late result is known.
WITH told AS MATERIALIZED (
  SELECT u.command_id, u.version, u.agent_id, u.command_type, u.result, u.sent_at, u.completed_at,
    CASE WHEN EXISTS (SELECT FROM audit_erasures x WHERE x.record_id = u.id AND 'params' = ANY (x.fields)) THEN '{}' ELSE u.params END AS params
  FROM audit_entries e JOIN update_logs u ON u.id = e.record_id AND u.created_at = e.recorded_at
  WHERE e.position >= :first AND e.position < :position::bigint AND u.command_id IS NOT NULL AND u.version IS NOT NULL
    AND (u.kind = 'transition' OR (u.kind = 'import' AND u.version = 1))
), newest AS (
  SELECT DISTINCT ON (command_id) * FROM told ORDER BY command_id, version DESC
), parameters AS (
  SELECT DISTINCT ON (command_id) command_id, params, uuid_send(gen_random_uuid()) AS salt
  FROM told WHERE params IS NOT NULL ORDER BY command_id, version DESC
), known AS (
  SELECT coalesce(n.command_id, b.command_id) AS command_id, coalesce(n.version, b.version) AS version,
    CASE WHEN n.command_id IS NULL THEN b.status ELSE command_status_of(n.result) END AS status,
    coalesce(n.agent_id, b.agent_id) AS agent_id, coalesce(n.command_type, b.command_type) AS command_type,
    CASE WHEN n.command_id IS NULL THEN b.sent_at ELSE n.sent_at END AS sent_at,
    CASE WHEN n.command_id IS NULL THEN b.completed_at ELSE n.completed_at END AS completed_at,
    CASE WHEN p.command_id IS NULL THEN b.params_salt ELSE p.salt END AS params_salt,
    CASE WHEN p.command_id IS NULL THEN b.params_hash ELSE sha256(p.salt || convert_to(p.params::text, 'UTF8')) END AS params_hash
  FROM newest n FULL JOIN (SELECT * FROM audit_snapshot_states WHERE snapshot = :first) b ON b.command_id = n.command_id
  LEFT JOIN parameters p ON p.command_id = n.command_id
)
INSERT INTO audit_snapshot_states (snapshot, command_id, archived, version, status, agent_id, command_type, sent_at, completed_at, params_salt, params_hash)
SELECT :position, k.command_id,
  EXISTS (SELECT FROM agent_commands c
    WHERE c.id = k.command_id AND c.next_deadline_at IS NULL AND c.version = k.version
      AND (c.late_reports = '{}' OR NOT EXISTS (SELECT FROM update_logs u WHERE u.command_id = c.id AND u.kind = 'late_result'
        AND NOT EXISTS (SELECT FROM audit_entries e WHERE e.record_id = u.id AND e.position < :position)))),
  k.version, k.status, k.agent_id, k.command_type, k.sent_at, k.completed_at, k.params_salt, k.params_hash
FROM known k ORDER BY k.command_id;

-- name: mismatch
-- The first command that is not what its state says, though nothing has changed it since then.
SELECT t.command_id FROM audit_snapshot_states t LEFT JOIN agent_commands c ON c.id = t.command_id
WHERE t.snapshot = :position AND (c.id IS NULL OR c.version < t.version OR c.version = t.version AND NOT (c.status = t.status AND c.agent_id = t.agent_id
  AND c.command_type = t.command_type AND c.sent_at IS NOT DISTINCT FROM t.sent_at AND c.completed_at IS NOT DISTINCT FROM t.completed_at
  AND sha256(t.params_salt || convert_to(c.params::text, 'UTF8')) = t.params_hash))
ORDER BY t.command_id LIMIT 1;

-- name: prune
-- One batch; how many rows went.
SELECT audit_prune(:most);

-- name: archives
-- What was pruned, step by step, the newest first.
SELECT s.position, s.first, s.bundle, encode(s.bundle_sha256, 'hex') AS bundle_sha256, s.commands, s.kept, s.logged_at, s.logged_id
FROM audit_snapshots s ORDER BY s.position DESC LIMIT :most;

-- name: states
-- The states of a snapshot in the order of their commands, some at a time.
SELECT command_id, archived, version, status, agent_id, command_type, sent_at, completed_at, params_salt, params_hash
FROM audit_snapshot_states WHERE snapshot = :position AND command_id > :after ORDER BY command_id LIMIT :most;

-- name: from_here
-- The snapshot at which the log begins, and one that is being pruned to; with their records, as far as they are in the log.
SELECT s.position, s.first, s.commands, s.states, s.kept, s.kept_states, s.bundle, s.bundle_sha256, s.note, s.logged_id,
  u.kind, u.metadata, e.position AS logged_position
FROM audit_snapshots s LEFT JOIN update_logs u ON u.id = s.logged_id AND u.created_at = s.logged_at LEFT JOIN audit_entries e ON e.record_id = u.id
WHERE s.position >= :pruned ORDER BY s.position;

-- name: newest
-- The newest snapshot.
SELECT s.position, s.first, s.commands, s.kept, s.bundle, s.bundle_sha256, s.logged_id, s.logged_at,
  (SELECT position FROM audit_entries e WHERE e.record_id = s.logged_id) AS logged_position
FROM audit_snapshots s ORDER BY s.position DESC LIMIT 1;

-- name: store
-- A snapshot, after its states. Its trigger asks whether it may be, counts them, and writes its record.
INSERT INTO audit_snapshots (position, states, kept_states, bundle, bundle_sha256, note, act)
VALUES (:position, :states, :kept_states, :bundle, :bundle_sha256, :note, :act)
RETURNING commands, kept;

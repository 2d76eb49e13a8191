-- name: chunk
-- Some positions with the records that stand there; a record that is gone has no id.
SELECT e.position, e.record_id, e.leaf, u.id, u.kind, u.created_at, u.executed_at, u.command_id, u.agent_id, u.version, u.command_type, u.action,
  u.result, u.sent_at, u.completed_at, u.exit_code, u.duration_seconds, u.actor, u.message, u.params::text AS params, u.stdout, u.stderr,
  u.metadata::text AS metadata, u.salt, u.salts
FROM audit_entries e LEFT JOIN update_logs u ON u.id = e.record_id AND u.created_at = e.recorded_at
WHERE e.position >= :first AND e.position < :end ORDER BY e.position;

-- name: checkpoints
-- Every checkpoint that was signed, the smallest tree first.
SELECT size, root, note FROM audit_checkpoints ORDER BY size;

-- name: unplaced
-- The first record that has no position and does not wait for one either: somebody took it from the outbox.
SELECT u.id, u.kind, u.command_id, u.created_at FROM update_logs u
WHERE NOT EXISTS (SELECT FROM audit_entries e WHERE e.record_id = u.id)
  AND NOT EXISTS (SELECT FROM audit_pending p WHERE p.id = u.id AND p.created_at = u.created_at)
ORDER BY u.created_at, u.id LIMIT 1;

-- name: counts
-- What there is to examine.
SELECT sequenced, integrated, (SELECT count(*) FROM audit_pending) AS pending, (SELECT count(*) FROM update_logs) AS records FROM audit_log;

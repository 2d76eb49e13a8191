-- name: record
-- A record with its place in the log, if it has one.
SELECT u.id, u.kind, u.created_at, u.executed_at, u.command_id, u.agent_id, u.version, u.command_type, u.action, u.result, u.sent_at,
  u.completed_at, u.exit_code, u.duration_seconds, u.actor, u.message, u.params::text AS params, u.stdout, u.stderr,
  u.metadata::text AS metadata, u.salt, u.salts, e.position, e.leaf
FROM update_logs u LEFT JOIN audit_entries e ON e.record_id = u.id
WHERE u.id = :record_id;

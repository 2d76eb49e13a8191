-- name: bounds
-- The positions between which everything that was recorded in a period stands. The index is a BRIN: positions nearly follow the times.
SELECT min(position) AS first, max(position) + 1 AS end FROM audit_entries
WHERE (:since::timestamptz IS NULL OR recorded_at >= :since) AND (:until::timestamptz IS NULL OR recorded_at < :until);

-- name: chunk
-- The records of a range of positions, as far as they pass the filters, in order, each with its leaf.
SELECT e.position, e.leaf, u.id, u.kind, u.created_at, u.executed_at, u.command_id, u.agent_id, u.version, u.command_type, u.action, u.result,
  u.sent_at, u.completed_at, u.exit_code, u.duration_seconds, u.actor, u.message, u.params::text AS params, u.stdout, u.stderr,
  u.metadata::text AS metadata, u.salt, u.salts
FROM audit_entries e JOIN update_logs u ON u.id = e.record_id AND u.created_at = e.recorded_at
WHERE e.position >= :first AND e.position < :end
  AND (:since::timestamptz IS NULL OR u.created_at >= :since) AND (:until::timestamptz IS NULL OR u.created_at < :until)
  AND (:agent_id::uuid IS NULL OR u.agent_id = :agent_id)
  AND (:command_id::uuid IS NULL OR u.command_id = :command_id)
  AND (:command_type::text IS NULL OR u.command_type = :command_type)
  AND (:kind::text IS NULL OR u.kind = :kind)
  AND (:result::text IS NULL OR u.result = :result)
  AND (:actor::text IS NULL OR u.actor = :actor)
ORDER BY e.position;

-- name: nearest
-- The first position recorded at that time or later, if the clock was never set back: found by halving, so that low and high are one.
WITH RECURSIVE halves (low, high) AS (
  SELECT coalesce(min(position), :size::bigint), :size::bigint FROM audit_entries
  UNION ALL
  SELECT CASE WHEN e.recorded_at < :moment::timestamptz THEN e.position + 1 ELSE h.low END, CASE WHEN e.recorded_at < :moment THEN h.high ELSE e.position END
  FROM halves h JOIN audit_entries e ON e.position = (h.low + h.high) / 2
  WHERE h.low < h.high
)
SELECT low, high FROM halves ORDER BY high - low LIMIT 1;

-- name: first_since
-- The first position of a period that is not after the given one. OFFSET 0 keeps the planner from walking until it meets one.
SELECT min(position) FROM (SELECT position FROM audit_entries WHERE recorded_at >= :since AND position <= :nearest OFFSET 0) AS earlier;

-- name: last_until
-- The last position of a period that is not before the given one.
SELECT max(position) FROM (SELECT position FROM audit_entries WHERE recorded_at < :until AND position >= :nearest OFFSET 0) AS later;

-- name: other_ways
-- Whether the planner may walk along the positions: it takes them for unrelated to the times, and would walk very far.
SELECT set_config('enable_indexscan', :allowed, true), set_config('enable_indexonlyscan', :allowed, true), set_config('enable_seqscan', :allowed, true);

-- name: oldest
-- The first position that is still there.
SELECT min(position) FROM audit_entries;

-- name: page
-- Records of a range of positions, as far as they pass the filters, in order, each with its leaf: so many, and so many bytes of what can be large
-- (their sizes are known without reading them), but at least one. `found` says how many there were before the bytes were counted.
SELECT position, leaf, id, kind, created_at, executed_at, command_id, agent_id, version, command_type, action, result, sent_at, completed_at,
  exit_code, duration_seconds, actor, message, params::text AS params, stdout, stderr, metadata::text AS metadata, salt, salts, found
FROM (
  SELECT *, count(*) OVER () AS found, sum(bytes) OVER (ORDER BY position) - bytes AS before
  FROM (
    SELECT e.position, e.leaf, u.*, coalesce(octet_length(u.stdout), 0) + coalesce(octet_length(u.stderr), 0) + coalesce(octet_length(u.message), 0)
      + coalesce(pg_column_size(u.params), 0) + coalesce(pg_column_size(u.metadata), 0) + octet_length(e.leaf) AS bytes
    FROM audit_entries e JOIN update_logs u ON u.id = e.record_id AND u.created_at = e.recorded_at
    WHERE e.position >= :first AND e.position < :end
      AND (:since::timestamptz IS NULL OR u.created_at >= :since) AND (:until::timestamptz IS NULL OR u.created_at < :until)
      AND (:agent_id::uuid IS NULL OR u.agent_id = :agent_id)
      AND (:command_id::uuid IS NULL OR u.command_id = :command_id)
      AND (:command_type::text IS NULL OR u.command_type = :command_type)
      AND (:kind::text IS NULL OR u.kind = :kind)
      AND (:result::text IS NULL OR u.result = :result)
      AND (:actor::text IS NULL OR u.actor = :actor)
    ORDER BY e.position LIMIT :most
  ) AS selected
) AS measured
WHERE before < :bytes ORDER BY position;

-- name: plan_for_these_values
-- A plan for all filters at once would read the whole table; in this transaction every plan is made for its values.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true);

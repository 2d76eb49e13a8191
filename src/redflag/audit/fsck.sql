-- name: page
-- Some positions with the records that stand there, until what comes before has :most_bytes; a record that is gone has no id. Lengths are
-- read without the values. Each record is looked up by itself (LATERAL … LIMIT): joined, the planner would read whole months for a page.
-- The columns end as in canonical.ROW.
SELECT position, record_id, leaf, salts, actor, message, params::text AS params, stdout, stderr, metadata::text AS metadata, salt, id, kind, created_at,
  executed_at, command_id, agent_id, version, command_type, action, result, sent_at, completed_at, exit_code,
  duration_seconds
FROM (
  SELECT e.position, e.record_id, e.leaf, u.*, sum(coalesce(octet_length(u.stdout), 0) + coalesce(octet_length(u.stderr), 0) + coalesce(octet_length(u.message), 0)
      + coalesce(pg_column_size(u.params), 0) + coalesce(pg_column_size(u.metadata), 0))
    OVER (ORDER BY e.position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
  FROM audit_entries e LEFT JOIN LATERAL (SELECT * FROM update_logs u WHERE u.id = e.record_id AND u.created_at = e.recorded_at LIMIT 1) u ON true
  WHERE e.position >= :first AND e.position < :end
) AS found
WHERE coalesce(bytes_before, 0) < :most_bytes::bigint ORDER BY position;

-- name: checkpoints
-- The checkpoints of sizes after one and up to another.
SELECT size, root, note FROM audit_checkpoints WHERE size > :after AND size <= :upto ORDER BY size;

-- name: odd_checkpoint
-- The first checkpoint of a size that the log does not have.
SELECT size, root, note FROM audit_checkpoints WHERE size < 0 OR size > :size ORDER BY size DESC LIMIT 1;

-- name: counted
-- How many checkpoints of up to how many records earlier examinations saw, as their records in the log say.
SELECT u.metadata FROM update_logs u JOIN audit_entries e ON e.record_id = u.id AND e.recorded_at = u.created_at
WHERE u.action = 'fsck' AND u.kind = 'service' AND u.result = 'success' AND starts_with(u.actor, 'service:fsck@');

-- name: erasures
-- What the records of erasures name, and whether each has a position in the log. Odd ones are found out by their own leaves.
SELECT a.record_id, e.position IS NOT NULL AS placed, ARRAY(SELECT jsonb_array_elements_text(
  CASE WHEN jsonb_typeof(u.metadata -> 'fields') = 'array' THEN u.metadata -> 'fields' ELSE '[]' END)) AS fields
FROM audit_erasures a
  JOIN update_logs u ON u.id = a.logged_id AND u.created_at = a.logged_at AND u.kind = 'erasure' AND u.metadata ->> 'record_id' = a.record_id::text
  LEFT JOIN audit_entries e ON e.record_id = u.id;

-- name: odd_entry
-- The first entry at a position that was never given.
SELECT position, record_id FROM audit_entries WHERE position < 0 OR position >= :size ORDER BY position LIMIT 1;

-- name: odd_tile
-- The first tile that has more or fewer hashes than the tree has there.
SELECT level, index, octet_length(hashes) / 32 AS hashes FROM audit_tiles
WHERE octet_length(hashes) <> 32 * CASE WHEN level NOT BETWEEN 0 AND 7 OR index < 0 THEN 0
  ELSE least(256, greatest(0, (:size::bigint >> 8 * level) - 256 * index::numeric)) END
ORDER BY level, index LIMIT 1;

-- name: unplaced
-- The first record that has no position and does not wait for one either: somebody took it from the outbox.
SELECT u.id, u.command_id FROM update_logs u
WHERE NOT EXISTS (SELECT FROM audit_entries e WHERE e.record_id = u.id AND e.recorded_at = u.created_at)
  AND NOT EXISTS (SELECT FROM audit_pending p WHERE p.id = u.id AND p.created_at = u.created_at)
ORDER BY u.created_at, u.id LIMIT 1;

-- name: odd_pending
-- The first in the outbox that is no record, or has a position.
SELECT p.id, EXISTS (SELECT FROM audit_entries e WHERE e.record_id = p.id) AS placed FROM audit_pending p
WHERE NOT EXISTS (SELECT FROM update_logs u WHERE u.id = p.id AND u.created_at = p.created_at) OR EXISTS (SELECT FROM audit_entries e WHERE e.record_id = p.id)
ORDER BY p.id LIMIT 1;

-- name: counts
-- What there is to examine.
SELECT origin, sequenced, integrated, pruned, (SELECT count(*) FROM audit_pending) AS pending FROM audit_log;

-- name: last_recorded
-- The last examination whose outcome was recorded.
SELECT executed_at, result, message, (metadata ->> 'size')::bigint AS size, metadata -> 'signatures_checked' = 'true' AS signatures_checked
FROM update_logs WHERE action = 'fsck' AND kind = 'service' AND actor LIKE 'service:fsck@%' ORDER BY executed_at DESC, id DESC LIMIT 1;

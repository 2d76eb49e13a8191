-- name: idle
-- Whether all that was recorded is in a checkpoint.
SELECT NOT EXISTS (SELECT FROM audit_pending) AND sequenced = integrated
  AND integrated = (SELECT coalesce(max(size), -1) FROM audit_checkpoints)
FROM audit_log;

-- name: claim
-- Whoever gets this row does the step; everybody else has nothing to do.
SELECT origin, sequenced, integrated FROM audit_log FOR UPDATE SKIP LOCKED;

-- name: take
-- What waits for a position, in the order in which it was recorded, as far as it is committed and nobody else's.
WITH taken AS (
  DELETE FROM audit_pending p USING (
    SELECT created_at, id FROM audit_pending WHERE NOT id = ANY (:passed_over::uuid[])
    ORDER BY created_at, id LIMIT :batch FOR UPDATE SKIP LOCKED
  ) oldest
  WHERE p.created_at = oldest.created_at AND p.id = oldest.id
  RETURNING p.created_at, p.id
)
SELECT u.id, u.kind, u.created_at, u.executed_at, u.command_id, u.agent_id, u.version, u.command_type, u.action, u.result, u.sent_at,
  u.completed_at, u.exit_code, u.duration_seconds, u.actor, u.message, u.params::text AS params, u.stdout, u.stderr,
  u.metadata::text AS metadata, u.salt
FROM taken JOIN update_logs u ON u.id = taken.id AND u.created_at = taken.created_at
ORDER BY u.created_at, u.id;

-- name: append
-- Gives positions, one after the other.
INSERT INTO audit_entries (position, record_id, recorded_at, leaf)
SELECT :first::bigint + place - 1, record_id, recorded_at, leaf
FROM unnest(:records::uuid[], :times::timestamptz[], :leaves::bytea[]) WITH ORDINALITY AS entry (record_id, recorded_at, leaf, place);

-- name: sequenced
-- How many have a position now.
UPDATE audit_log SET sequenced = :sequenced;

-- name: entries
-- The leaves of a range of positions, in order.
SELECT position, leaf FROM audit_entries WHERE position >= :first AND position < :end ORDER BY position;

-- name: tiles
-- Some tiles.
SELECT t.level, t.index, t.hashes FROM audit_tiles t
JOIN unnest(:levels::smallint[], :indexes::bigint[]) AS wanted (level, index) ON t.level = wanted.level AND t.index = wanted.index;

-- name: put_tiles
-- Makes tiles, or lets them grow.
INSERT INTO audit_tiles AS t (level, index, hashes)
SELECT level, index, hashes FROM unnest(:levels::smallint[], :indexes::bigint[], :hashes::bytea[]) AS tile (level, index, hashes)
ORDER BY level, index
ON CONFLICT (level, index) DO UPDATE SET hashes = EXCLUDED.hashes WHERE octet_length(EXCLUDED.hashes) > octet_length(t.hashes);

-- name: integrated
-- How many are in the tree now.
UPDATE audit_log SET integrated = :integrated;

-- name: name_log
-- The log's name, given once.
UPDATE audit_log SET origin = :origin WHERE origin IS NULL RETURNING origin;

-- name: state
-- How far each step is.
SELECT origin, sequenced, integrated, (SELECT count(*) FROM (SELECT FROM audit_pending LIMIT 1000000) AS waiting) AS pending FROM audit_log;

-- name: newest_checkpoint
-- The largest tree that was signed.
SELECT size, root, note, published_at FROM audit_checkpoints ORDER BY size DESC LIMIT 1;

-- name: checkpoint
-- The checkpoint of a size.
SELECT size, root, note, published_at FROM audit_checkpoints WHERE size = :size;

-- name: publish
-- A checkpoint. Of two servers that sign one size, the first is kept; they say the same.
INSERT INTO audit_checkpoints (size, root, note) VALUES (:size, :root, :note) ON CONFLICT (size) DO NOTHING;

-- name: position
-- Where a record stands in the log.
SELECT e.position, e.leaf FROM audit_entries e WHERE e.record_id = :record_id;

-- name: positions
-- Where some records stand in the log.
SELECT record_id, position FROM audit_entries WHERE record_id = ANY (:records::uuid[]);

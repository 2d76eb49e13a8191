-- name: look
-- What the log is called, and whether all that was recorded is in a checkpoint.
SELECT origin, NOT EXISTS (SELECT FROM audit_pending) AND sequenced = integrated
  AND integrated = (SELECT coalesce(max(size), -1) FROM audit_checkpoints) AS idle
FROM audit_log;

-- name: health
-- How far the log is, and for how long the oldest record waits: for a position, and for a checkpoint.
SELECT l.origin, l.sequenced, l.integrated,
  (SELECT count(*) FROM (SELECT FROM audit_pending LIMIT 1000000) AS waiting) AS pending,
  greatest(0, extract(epoch FROM clock_timestamp() - pending.created_at))::double precision AS lag_seconds,
  greatest(0, extract(epoch FROM clock_timestamp() - least(pending.created_at, unpublished.recorded_at)))::double precision AS unpublished_seconds,
  coalesce(newest.size, 0) AS size, newest.published_at
FROM audit_log l
LEFT JOIN LATERAL (SELECT size, published_at FROM audit_checkpoints ORDER BY size DESC LIMIT 1) newest ON true
LEFT JOIN LATERAL (SELECT created_at FROM audit_pending ORDER BY created_at, id LIMIT 1) pending ON true
LEFT JOIN LATERAL (SELECT recorded_at FROM audit_entries WHERE position >= coalesce(newest.size, 0) ORDER BY position LIMIT 1) unpublished ON true;

-- name: claim
-- Whoever gets this row does the step; everybody else has nothing to do.
SELECT origin, sequenced, integrated FROM audit_log FOR UPDATE SKIP LOCKED;

-- name: take
-- What waits for a position, in the order in which it was recorded, as far as it is committed and nobody else's, and until the
-- output of what comes before has :most_bytes. Lengths are read without the values, and only what is taken is read whole.
-- Each record is looked up by itself (LATERAL … LIMIT): joined, the planner would at times read whole months of records for a thousand.
-- The columns stand as in canonical.ROW.
WITH oldest AS MATERIALIZED (
  SELECT ctid AS place, created_at, id FROM audit_pending WHERE NOT id = ANY (:passed_over::uuid[])
  ORDER BY created_at, id LIMIT :batch FOR UPDATE SKIP LOCKED
), measured AS MATERIALIZED (
  SELECT o.place, u.*, sum(coalesce(octet_length(u.stdout), 0) + coalesce(octet_length(u.stderr), 0) + coalesce(octet_length(u.message), 0)
      + coalesce(pg_column_size(u.params), 0) + pg_column_size(u.metadata))
    OVER (ORDER BY o.created_at, o.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
  FROM oldest o CROSS JOIN LATERAL (SELECT * FROM update_logs u WHERE u.id = o.id AND u.created_at = o.created_at LIMIT 1) u
), taken AS (
  -- A row of the outbox is never updated, and these are locked: each is where it was found
  DELETE FROM audit_pending WHERE ctid = ANY (ARRAY(SELECT place FROM measured WHERE coalesce(bytes_before, 0) < :most_bytes::bigint))
)
SELECT u.actor, u.message, u.params::text AS params, u.stdout, u.stderr, u.metadata::text AS metadata, u.salt, u.id, u.kind, u.created_at,
  u.executed_at, u.command_id, u.agent_id, u.version, u.command_type, u.action, u.result, u.sent_at, u.completed_at, u.exit_code,
  u.duration_seconds
FROM measured u WHERE coalesce(u.bytes_before, 0) < :most_bytes::bigint
ORDER BY u.created_at, u.id;

-- name: waiting
-- Some of what waits for a position, after one, until what comes before has :most_bytes. The columns stand as in canonical.ROW.
SELECT actor, message, params::text AS params, stdout, stderr, metadata::text AS metadata, salt, id, kind, created_at,
  executed_at, command_id, agent_id, version, command_type, action, result, sent_at, completed_at, exit_code,
  duration_seconds
FROM (
  SELECT u.*, sum(coalesce(octet_length(u.stdout), 0) + coalesce(octet_length(u.stderr), 0) + coalesce(octet_length(u.message), 0)
      + coalesce(pg_column_size(u.params), 0) + coalesce(pg_column_size(u.metadata), 0))
    OVER (ORDER BY p.created_at, p.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
  FROM (SELECT created_at, id FROM audit_pending WHERE (created_at, id) > (:created_at, :id) ORDER BY created_at, id LIMIT :most) p
  CROSS JOIN LATERAL (SELECT * FROM update_logs u WHERE u.id = p.id AND u.created_at = p.created_at LIMIT 1) u
) AS found
WHERE coalesce(bytes_before, 0) < :most_bytes::bigint ORDER BY created_at, id;

-- name: next_waiting
-- The next that waits after one.
SELECT id FROM audit_pending WHERE (created_at, id) > (:created_at, :id) ORDER BY created_at, id LIMIT 1;

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
-- Makes tiles, or lets them grow. One that holds something else already, which nobody hashed, is refused by its trigger.
INSERT INTO audit_tiles AS t (level, index, hashes)
SELECT level, index, hashes FROM unnest(:levels::smallint[], :indexes::bigint[], :hashes::bytea[]) AS tile (level, index, hashes)
ORDER BY level, index
ON CONFLICT (level, index) DO UPDATE SET hashes = EXCLUDED.hashes WHERE t.hashes <> EXCLUDED.hashes;

-- name: integrated
-- How many are in the tree now.
UPDATE audit_log SET integrated = :integrated;

-- name: name_log
-- The log's name, given once.
UPDATE audit_log SET origin = :origin WHERE origin IS NULL RETURNING origin;

-- name: state
-- How far each step is.
SELECT origin, sequenced, integrated, pruned, (SELECT count(*) FROM (SELECT FROM audit_pending LIMIT 1000000) AS waiting) AS pending FROM audit_log;

-- name: newest_checkpoint
-- The largest tree that was signed, if it was signed under the log's name of today: a log that was reopened just now has none yet.
SELECT size, root, note, published_at FROM (SELECT * FROM audit_checkpoints ORDER BY size DESC LIMIT 1) AS newest
WHERE origin = (SELECT origin FROM audit_log);

-- name: checkpoint
-- The checkpoint of a size. A size is signed once, whatever the log was called then.
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

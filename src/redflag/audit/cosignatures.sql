-- name: times
-- When a checkpoint was signed, and what time it is.
SELECT published_at, clock_timestamp() AS now FROM audit_checkpoints WHERE size = :size;

-- name: keep
-- A cosignature. Of two of one witness the first is kept.
INSERT INTO log_cosignatures (size, witness, key_id, line, cosigned_at) VALUES (:size, :witness, :key_id, :line, :cosigned_at)
ON CONFLICT (size, witness) DO NOTHING;

-- name: of_checkpoint
-- The cosignatures of a checkpoint, as many as every verifier reads.
SELECT witness, key_id, line, cosigned_at FROM log_cosignatures WHERE size = :size ORDER BY stored_at, witness LIMIT :most;

-- name: newest
-- The newest checkpoint of the log by its name of today, or the newest with a quorum, looked for among 10,000 cosignatures.
SELECT c.size, c.root, c.note, c.published_at FROM audit_checkpoints c
WHERE c.size > :above::bigint AND starts_with(c.note, (SELECT origin FROM audit_log) || E'\n') AND c.size = CASE WHEN :quorum::integer > 0
  THEN (SELECT s.size FROM (SELECT size FROM log_cosignatures ORDER BY size DESC LIMIT 10000) s
        GROUP BY s.size HAVING count(*) >= :quorum::integer ORDER BY s.size DESC LIMIT 1)
  ELSE (SELECT max(size) FROM audit_checkpoints) END;

-- name: keys
-- The keys of all witnesses that there ever were: a target that was removed keeps its row.
SELECT vkey FROM log_targets WHERE vkey IS NOT NULL;

-- name: after
-- Some cosignatures after one, with the note of their checkpoint; NULL: it is gone.
SELECT s.size, s.witness, s.key_id, s.line, s.cosigned_at, c.note FROM log_cosignatures s LEFT JOIN audit_checkpoints c ON c.size = s.size
WHERE (s.size, s.witness) > (:size, :witness) ORDER BY s.size, s.witness LIMIT :most;

-- name: unsent
-- The first target that has a checkpoint which is not there.
SELECT kind, name, acknowledged_size AS size FROM log_targets t
WHERE acknowledged_size > 0 AND NOT EXISTS (SELECT FROM audit_checkpoints c WHERE c.size = t.acknowledged_size)
ORDER BY acknowledged_size, id LIMIT 1;

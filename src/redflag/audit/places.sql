-- name: covering
-- The first checkpoint that covers a position, and the cosignatures of the first after it that has any.
SELECT c.size, c.published_at, s.witness, s.size AS cosigned_size, s.cosigned_at
FROM (SELECT size, published_at FROM audit_checkpoints WHERE size > :position::bigint ORDER BY size LIMIT 1) AS c
LEFT JOIN log_cosignatures s ON s.size = (SELECT min(size) FROM log_cosignatures WHERE size > :position)
ORDER BY s.cosigned_at, s.witness LIMIT 15;

-- name: erasures
-- What was erased of a record, and which records say so.
SELECT fields, logged_id, logged_at FROM audit_erasures WHERE record_id = :record_id ORDER BY logged_at, id LIMIT 100;

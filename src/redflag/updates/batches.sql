-- name: begin
-- Updates that were decided on together. What is older than 30 days goes.
WITH old AS (
  DELETE FROM update_batches WHERE id IN (
    SELECT id FROM update_batches WHERE created_at < now() - interval '30 days' ORDER BY created_at LIMIT 100 FOR UPDATE SKIP LOCKED)
)
INSERT INTO update_batches (actor, act, done, refused, update_ids) VALUES (:actor, :act, :done, :refused, :ids) RETURNING id;

-- name: go_on
-- What was done with the same updates next.
UPDATE update_batches SET acted_at = now(), actor = :actor, act = :act, done = :done, refused = :refused WHERE id = :id;

-- name: batch
-- A batch, but for its updates.
SELECT id, created_at, acted_at, actor, act, done, refused, cardinality(update_ids) AS updates FROM update_batches WHERE id = :id;

-- name: standing
-- How many of a batch's updates are where. Of `dependencies`, those whose dry run has answered stand apart.
SELECT u.status, u.status = 'dependencies' AND u.dependencies IS NOT NULL AS waits, count(*) AS updates
FROM update_batches b CROSS JOIN unnest(b.update_ids) AS chosen (id) JOIN updates u ON u.id = chosen.id
WHERE b.id = :id GROUP BY 1, 2;

-- name: rows
-- A batch's updates with the command that works on each: what a person must see first comes first.
SELECT u.id, u.agent_id, u.agent_name, u.seconds_since_seen, u.package_type, u.package_name, u.current_version, u.available_version,
  u.severity, u.status, u.reason, u.approved_version, u.dependencies, u.command_id, u.status_at, c.status AS command_status
FROM (
  SELECT u.*, coalesce(a.name, a.hostname) AS agent_name, extract(epoch FROM now() - p.last_seen)::double precision AS seconds_since_seen
  FROM update_batches b CROSS JOIN unnest(b.update_ids) AS chosen (id) JOIN updates u ON u.id = chosen.id
    JOIN agents a ON a.id = u.agent_id LEFT JOIN agent_presence p ON p.agent_id = a.id
  WHERE b.id = :id AND (:statuses::text[] IS NULL OR u.status = ANY (:statuses))
  ORDER BY array_position(:urgency::text[], u.status), u.package_name, u.package_type, u.agent_id LIMIT :limit OFFSET :offset
) u LEFT JOIN agent_commands c ON c.id = u.command_id
ORDER BY array_position(:urgency::text[], u.status), u.package_name, u.package_type, u.agent_id;

-- name: ids
-- Those of a batch's updates that stand in these states, in the order of packages.
SELECT u.id FROM update_batches b CROSS JOIN unnest(b.update_ids) AS chosen (id) JOIN updates u ON u.id = chosen.id
WHERE b.id = :id AND u.status = ANY (:statuses::text[]) AND (NOT :waiting::boolean OR u.dependencies IS NOT NULL)
ORDER BY u.package_name, u.package_type, u.agent_id;

-- name: brought
-- What the dry runs of a batch's updates found that are still to be decided on or installed: the same findings together.
SELECT u.package_name, u.package_type, u.dependencies, count(*) AS agents
FROM update_batches b CROSS JOIN unnest(b.update_ids) AS chosen (id) JOIN updates u ON u.id = chosen.id
WHERE b.id = :id AND u.dependencies IS NOT NULL AND u.status = ANY ('{pending,approved,dependencies}')
GROUP BY u.package_name, u.package_type, u.dependencies
ORDER BY cardinality(u.dependencies) DESC, count(*) DESC, u.package_name, u.package_type LIMIT 50;

-- name: names
-- What some updates are, for those that were refused.
SELECT u.id, u.package_name, u.package_type, u.agent_id, coalesce(a.name, a.hostname) AS agent_name
FROM updates u JOIN agents a ON a.id = u.agent_id WHERE u.id = ANY (:ids::uuid[]);

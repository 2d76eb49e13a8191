-- name: approve
-- A person's yes, for the version that is offered now. What was examined stays examined.
WITH held AS MATERIALIZED (
  SELECT id, status FROM updates WHERE id = ANY (:ids::uuid[]) ORDER BY id FOR UPDATE
)
UPDATE updates u SET status = 'approved', approved_version = u.available_version, reason = NULL, install_wanted_by = NULL, act = :act
FROM held WHERE u.id = held.id AND held.status = ANY (:approvable::text[])
RETURNING u.id, u.agent_id, u.package_type, u.package_name, u.status, u.approved_version;

-- name: reject
-- A person's no.
WITH held AS MATERIALIZED (
  SELECT id, status FROM updates WHERE id = ANY (:ids::uuid[]) ORDER BY id FOR UPDATE
)
UPDATE updates u SET status = 'rejected', approved_version = NULL, reason = :reason, install_wanted_by = NULL, act = :act
FROM held WHERE u.id = held.id AND held.status = ANY (:rejectable::text[])
RETURNING u.id, u.agent_id, u.package_type, u.package_name, u.status, u.reason;

-- name: statuses
-- What the updates are now that were not decided on.
SELECT id, status FROM updates WHERE id = ANY (:ids::uuid[]);

-- name: hold
-- Updates as they are, until the end of the transaction. A command whose row this statement cannot see was enqueued a moment ago.
SELECT u.id, u.agent_id, u.package_type, u.package_name, u.status, u.dependencies, u.approved_version, u.install_wanted_by, u.command_id,
  a.removed_at IS NOT NULL AS removed,
  u.command_id IS NOT NULL
    AND coalesce((SELECT c.next_deadline_at IS NOT NULL FROM agent_commands c WHERE c.id = u.command_id), true) AS live
FROM updates u JOIN agents a ON a.id = u.agent_id
WHERE u.id = ANY (:ids::uuid[])
ORDER BY u.id FOR UPDATE OF u;

-- name: start
-- Enqueues a command for each update and says so on the update. A new dry run forgets what the last one said, and an approval
-- outlives it only if it was in force. The rows are locked before (`hold`).
WITH begun AS MATERIALIZED (
  SELECT uuidv7() AS command_id, u.agent_id, s.*
  FROM unnest(:ids::uuid[], :before::text[], :statuses::text[], :types::text[], :params::jsonb[], :wanted_by::text[])
      AS s (id, before, status, command_type, params, wanted_by)
    JOIN updates u ON u.id = s.id AND u.status = s.before
), enqueued AS (
  INSERT INTO agent_commands (id, agent_id, command_type, params, source, act)
  SELECT command_id, agent_id, command_type, params, :source, :act FROM begun ORDER BY command_id
)
UPDATE updates u SET status = b.status, command_id = b.command_id, reason = NULL, install_wanted_by = b.wanted_by,
  approved_version = CASE WHEN b.before = ANY ('{approved,dependencies}') THEN u.approved_version END,
  dependencies = CASE WHEN b.status = 'dependencies' THEN NULL ELSE u.dependencies END,
  act = :act::jsonb || jsonb_build_object('command_id', b.command_id)
FROM begun b WHERE u.id = b.id AND u.status = b.before
RETURNING u.id, u.agent_id, u.package_type, u.package_name, u.status, u.command_id, b.command_type;

-- name: hold
-- The update that a dry run was made for: by its id, or by its package if the agent has none of that id.
SELECT id, status, dependencies FROM updates
WHERE agent_id = :agent_id AND (id = :update_id::uuid OR (package_type = :package_type AND package_name = :package_name))
ORDER BY id IS NOT DISTINCT FROM :update_id::uuid DESC LIMIT 1
FOR UPDATE;

-- name: store
-- What the dry run found. If nobody wanted more than that, the update goes back to where it was before.
UPDATE updates SET dependencies = :dependencies::text[],
  status = CASE WHEN status <> 'dependencies' OR install_wanted_by IS NOT NULL THEN status
                WHEN approved_version IS NOT NULL THEN 'approved' ELSE 'pending' END,
  reason = CASE WHEN status <> 'dependencies' THEN reason
                WHEN install_wanted_by IS NOT NULL AND :dependencies::text[] <> '{}' THEN 'waits for the confirmation of its dependencies' END,
  act = CASE WHEN status = 'dependencies' AND install_wanted_by IS NULL THEN :act ELSE act END
WHERE id = :id
RETURNING id, agent_id, package_type, package_name, status, dependencies, install_wanted_by;

-- name: examination_failed
-- A dry run that failed; whatever was wanted after it does not follow.
UPDATE updates SET status = 'failed', reason = :reason, install_wanted_by = NULL, act = :act
WHERE id = :id AND status = 'dependencies'
RETURNING status;

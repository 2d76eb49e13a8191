-- name: installed
-- Reported as installed: the next scan confirms it, or not. A success that comes after the timeout counts as well.
WITH held AS MATERIALIZED (
  SELECT id, status FROM updates WHERE command_id = :command_id AND agent_id = :agent_id ORDER BY id FOR UPDATE
)
UPDATE updates u SET status = 'unconfirmed', act = :act,
  reason = CASE WHEN held.status = 'failed' THEN 'reported as installed after the timeout' END
FROM held WHERE u.id = held.id AND (held.status = 'installing' OR (:late::boolean AND held.status = 'failed'));

-- name: failed
-- Reported as not installed.
WITH held AS MATERIALIZED (
  SELECT id, status FROM updates WHERE command_id = :command_id AND agent_id = :agent_id ORDER BY id FOR UPDATE
), ended AS (
  UPDATE updates u SET status = 'failed', reason = :reason, act = :act
  FROM held WHERE u.id = held.id AND held.status = 'installing'
  RETURNING u.agent_id, u.package_type, u.package_name, u.current_version, u.available_version, u.severity
)
INSERT INTO update_versions (agent_id, package_type, package_name, version_from, version_to, severity, event, reason, command_id)
SELECT agent_id, package_type, package_name, current_version, available_version, severity, 'failed', :reason, :command_id FROM ended;

-- name: examined
-- The dry run has ended. If it failed, or ended without telling the dependencies, the update has failed.
WITH held AS MATERIALIZED (
  SELECT id, status, dependencies FROM updates WHERE command_id = :command_id AND agent_id = :agent_id ORDER BY id FOR UPDATE
)
UPDATE updates u SET status = 'failed', reason = :reason, install_wanted_by = NULL, act = :act
FROM held WHERE u.id = held.id AND held.status = 'dependencies' AND NOT (:succeeded::boolean AND held.dependencies IS NOT NULL);

-- name: needs_scan
-- Whether a scan is not waiting already for this agent, which is still one of ours.
SELECT EXISTS (SELECT FROM agents WHERE id = :agent_id AND removed_at IS NULL)
  AND NOT EXISTS (SELECT FROM agent_commands
    WHERE agent_id = :agent_id AND next_deadline_at > now() AND status = 'pending' AND command_type = 'scan_updates');

-- name: cancelled
-- What cancelled commands worked on goes back to where it was before.
WITH held AS MATERIALIZED (
  SELECT u.id, u.status FROM updates u JOIN agent_commands c ON c.id = u.command_id
  WHERE u.command_id = ANY (:command_ids::uuid[]) AND c.status = 'cancelled'
  ORDER BY u.id FOR UPDATE OF u
)
UPDATE updates u SET install_wanted_by = NULL, act = :act,
  status = CASE WHEN held.status = 'installing' OR u.approved_version IS NOT NULL THEN 'approved' ELSE 'pending' END,
  reason = CASE WHEN held.status = 'installing' THEN 'the installation was cancelled' ELSE 'the dry run was cancelled' END
FROM held WHERE u.id = held.id AND (held.status = 'installing' OR (held.status = 'dependencies' AND u.dependencies IS NULL));

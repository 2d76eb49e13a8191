-- name: plan_for_these_values
-- A plan for all filters at once would read the whole table; in this transaction every plan is made for its values.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true);

-- name: position
-- Where in the order of packages an update stands. Updates are never removed, so a position stays.
SELECT package_name, package_type, agent_id FROM updates WHERE id = :id;

-- name: list_updates
-- An agent's updates by package, from a position on.
SELECT u.id, u.agent_id, coalesce(a.name, a.hostname) AS agent_name, u.package_type, u.package_name, u.description, u.current_version,
  u.available_version, u.severity, u.cve_list, u.kb_id, u.repository_source, u.size_bytes, u.status, u.reason, u.approved_version,
  u.dependencies, u.install_wanted_by, u.command_id, u.first_seen_at, u.last_seen_at, u.status_at
FROM updates u JOIN agents a ON a.id = u.agent_id AND a.removed_at IS NULL
WHERE u.agent_id = :agent_id
  AND (:text::text IS NULL OR u.package_name ILIKE :text)
  AND (:package_type::text IS NULL OR u.package_type = :package_type)
  AND u.status = ANY (:statuses::text[]) AND u.severity = ANY (:severities::text[])
  AND (:after_name::text IS NULL OR (u.package_name, u.package_type) > (:after_name, :after_type::text))
ORDER BY u.package_name, u.package_type LIMIT :limit;

-- name: update
-- One update, as it is now.
SELECT u.id, u.agent_id, coalesce(a.name, a.hostname) AS agent_name, u.package_type, u.package_name, u.description, u.current_version,
  u.available_version, u.severity, u.cve_list, u.kb_id, u.repository_source, u.size_bytes, u.metadata, u.status, u.reason,
  u.approved_version, u.dependencies, u.install_wanted_by, u.command_id, u.first_seen_at, u.last_seen_at, u.status_at
FROM updates u JOIN agents a ON a.id = u.agent_id
WHERE u.id = :id;

-- name: versions
-- What was seen of a package on an agent, the newest first.
SELECT id, event, version_from, version_to, severity, reason, command_id, seen_at FROM update_versions
WHERE agent_id = :agent_id AND package_type = :package_type AND package_name = :package_name
ORDER BY seen_at DESC, id DESC LIMIT 200;

-- name: counts_of_agent
-- How many updates an agent has, by status and severity.
SELECT u.status, u.severity, count(*) AS updates
FROM updates u JOIN agents a ON a.id = u.agent_id AND a.removed_at IS NULL
WHERE u.agent_id = :agent_id
GROUP BY u.status, u.severity;

-- name: counts
-- How many updates there are, by status and severity: all of them, from an index alone, less those of the agents that were removed.
SELECT status, severity, sum(updates)::bigint AS updates FROM (
  SELECT status, severity, count(*) AS updates FROM updates GROUP BY status, severity
  UNION ALL
  SELECT u.status, u.severity, -count(*) FROM updates u JOIN agents a ON a.id = u.agent_id WHERE a.removed_at IS NOT NULL GROUP BY u.status, u.severity
) AS counted
GROUP BY status, severity;

-- name: to_confirm
-- How many updates wait for a person's yes to the dependencies that their dry run found, counted as far as :most.
SELECT count(*) FROM (
  SELECT FROM updates u JOIN agents a ON a.id = u.agent_id AND a.removed_at IS NULL
  WHERE u.status = 'dependencies' AND u.dependencies IS NOT NULL LIMIT :most
) AS counted;

-- name: open_of_agents
-- How many updates of each of these agents still ask for something, by severity.
SELECT agent_id, severity, count(*) AS updates FROM updates
WHERE agent_id = ANY (:agents::uuid[]) AND status = ANY (:open::text[]) GROUP BY agent_id, severity;

-- name: worst_of_agent
-- The updates of an agent that still ask for something, the worst first. Severities come from least to most.
SELECT id, package_type, package_name, current_version, available_version, severity, status FROM updates
WHERE agent_id = :agent_id AND status = ANY (:open::text[])
ORDER BY array_position(:severities::text[], severity) DESC, package_name, package_type LIMIT :limit;

-- name: decisions
-- The records of an update among the newest ones of its agent.
SELECT id, executed_at, created_at, actor, action, kind, result, message, metadata FROM (
  SELECT id, executed_at, created_at, actor, action, kind, result, message, metadata FROM update_logs
  WHERE agent_id = :agent_id ORDER BY executed_at DESC, id DESC LIMIT :among
) newest
WHERE kind = 'change' AND metadata ->> 'subject_id' = :update_id
ORDER BY executed_at DESC, id DESC LIMIT 100;

-- name: last_scan
-- When a scan last succeeded, among the newest records of scans.
SELECT executed_at FROM (
  SELECT executed_at, id, result FROM update_logs WHERE command_type = 'scan_updates' ORDER BY executed_at DESC, id DESC LIMIT 1000
) newest
WHERE result IN ('success', 'partial') ORDER BY executed_at DESC LIMIT 1;

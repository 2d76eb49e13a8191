-- name: suspects_current_package_state
-- Packages that may hold a secret.
SELECT id, told FROM (
  SELECT id, jsonb_build_object('repository_source', repository_source, 'metadata', metadata) AS told FROM staged_current_package_state
) AS one WHERE lower(told::text COLLATE "C") LIKE ANY (:suspicious);

-- name: clean_current_package_state
-- Without the secrets.
UPDATE staged_current_package_state s SET repository_source = c.told ->> 'repository_source', metadata = c.told -> 'metadata'
FROM unnest(:ids::uuid[], :told::jsonb[]) AS c (id, told) WHERE s.id = c.id;

-- name: suspects_update_packages
-- Packages that may hold a secret.
SELECT id, told FROM (
  SELECT id, jsonb_build_object('repository_source', repository_source, 'description', description, 'error_message', error_message,
    'metadata', metadata) AS told FROM staged_update_packages
) AS one WHERE lower(told::text COLLATE "C") LIKE ANY (:suspicious);

-- name: clean_update_packages
-- Without the secrets.
UPDATE staged_update_packages s SET repository_source = c.told ->> 'repository_source', description = c.told ->> 'description',
  error_message = c.told ->> 'error_message', metadata = c.told -> 'metadata'
FROM unnest(:ids::uuid[], :told::jsonb[]) AS c (id, told) WHERE s.id = c.id;

-- name: suspects_update_version_history
-- Versions that may hold a secret in their reason.
SELECT id, told FROM (
  SELECT id, jsonb_build_object('failure_reason', failure_reason, 'metadata', metadata) AS told FROM staged_update_version_history
) AS one WHERE lower(told::text COLLATE "C") LIKE ANY (:suspicious);

-- name: clean_update_version_history
-- Without the secrets.
UPDATE staged_update_version_history s SET failure_reason = c.told ->> 'failure_reason', metadata = c.told -> 'metadata'
FROM unnest(:ids::uuid[], :told::jsonb[]) AS c (id, told) WHERE s.id = c.id;

-- name: judge_current_package_state
-- An update keeps its id; of one package on one agent there is one update.
UPDATE staged_current_package_state s SET fate = j.fate FROM (
  SELECT s.id, CASE
      WHEN EXISTS (SELECT FROM updates u WHERE u.id = s.id) THEN 'already there'
      WHEN NOT EXISTS (SELECT FROM agents a WHERE a.id = s.agent_id) THEN 'its agent is not there'
      WHEN length(s.package_type) NOT BETWEEN 1 AND 50 OR length(s.package_name) NOT BETWEEN 1 AND 500 THEN 'its name is empty, or longer than 500 characters'
      WHEN EXISTS (SELECT FROM updates u WHERE u.agent_id = s.agent_id AND u.package_type = s.package_type AND u.package_name = s.package_name)
        THEN 'a scan has found this package already' END AS fate
  FROM staged_current_package_state s
) j WHERE j.id = s.id AND j.fate IS NOT NULL;

-- name: insert_current_package_state
-- Updates as RedFlag had them. What was under way stays so only while the command that works on it is live.
INSERT INTO updates (id, agent_id, package_type, package_name, current_version, available_version, severity, repository_source, metadata, status,
  reason, approved_version, dependencies, command_id, first_seen_at, last_seen_at, status_at, act)
SELECT s.id, s.agent_id, s.package_type, s.package_name, coalesce(s.current_version, ''), coalesce(s.available_version, ''), coalesce(v.word, 'unknown'),
  coalesce(s.repository_source, ''),
  CASE WHEN jsonb_typeof(s.metadata) = 'object' THEN s.metadata ELSE '{}' END
    || CASE WHEN v.word IS NULL AND s.severity <> '' THEN jsonb_build_object('reported_severity', s.severity) ELSE '{}' END,
  b.becomes,
  CASE WHEN b.becomes = 'dependencies' AND k.command_id IS NULL THEN 'waits for the confirmation of its dependencies'
       WHEN w.ours IS NULL THEN 'RedFlag called it ' || left(s.status, 100)
       WHEN s.status = 'installing' AND b.becomes = 'failed' THEN 'RedFlag had begun to install it; how that ended is not known'
       WHEN b.becomes = 'failed' THEN left(coalesce(f.reason, 'it failed in RedFlag'), 500)
       WHEN b.becomes = 'rejected' THEN s.status || ' in RedFlag' END,
  CASE WHEN b.becomes IN ('approved', 'installing') THEN s.available_version END,
  CASE WHEN b.becomes = 'dependencies' AND k.command_id IS NULL
    THEN ARRAY(SELECT jsonb_array_elements_text(s.metadata -> 'dependencies')) END,
  k.command_id,
  coalesce(e.first_seen, s.last_discovered_at, s.last_updated_at, now()), coalesce(s.last_discovered_at, s.last_updated_at, now()),
  coalesce(s.last_updated_at, s.last_discovered_at, now()), jsonb_build_object('action', 'update_imported')
FROM staged_current_package_state s
  LEFT JOIN unnest(:their_statuses::text[], :our_statuses::text[]) AS w (theirs, ours) ON w.theirs = s.status
  LEFT JOIN unnest(:severities::text[]) AS v (word) ON v.word = lower(btrim(s.severity))
  LEFT JOIN (SELECT agent_id, package_type, package_name, min(created_at) AS first_seen FROM staged_update_events GROUP BY 1, 2, 3) e
    USING (agent_id, package_type, package_name)
  LEFT JOIN (
    SELECT DISTINCT ON (agent_id, package_type, package_name) agent_id, package_type, package_name,
      coalesce(nullif(failure_reason, ''), metadata ->> 'failure_reason') AS reason
    FROM staged_update_version_history WHERE update_status <> 'success' ORDER BY agent_id, package_type, package_name, update_completed_at DESC NULLS LAST
  ) f USING (agent_id, package_type, package_name)
  LEFT JOIN LATERAL (
    SELECT c.id AS command_id FROM agent_commands c
    WHERE s.status IN ('installing', 'checking_dependencies') AND c.agent_id = s.agent_id AND c.next_deadline_at IS NOT NULL
      AND c.command_type = ANY (CASE s.status WHEN 'installing' THEN '{install_updates,confirm_dependencies}'::text[] ELSE '{dry_run_update}' END)
      AND (c.params ->> 'update_id' = s.id::text OR (c.params ->> 'package_type' = s.package_type AND c.params ->> 'package_name' = s.package_name))
    ORDER BY c.created_at DESC, c.id LIMIT 1
  ) k ON true
  CROSS JOIN LATERAL (SELECT CASE
      WHEN k.command_id IS NOT NULL THEN CASE s.status WHEN 'installing' THEN 'installing' ELSE 'dependencies' END
      WHEN w.ours = 'dependencies' AND coalesce(jsonb_typeof(s.metadata -> 'dependencies'), '') <> 'array' THEN 'pending'
      ELSE coalesce(w.ours, 'pending') END AS becomes) b
WHERE s.fate IS NULL;

-- name: judge_update_packages
-- RedFlag's older table: current_package_state knows better, and of several offers for one package the newest holds.
UPDATE staged_update_packages s SET fate = j.fate FROM (
  SELECT s.id, CASE
      WHEN EXISTS (SELECT FROM updates u WHERE u.id = s.id) THEN 'already there'
      WHEN s.agent_id IS NULL OR NOT EXISTS (SELECT FROM agents a WHERE a.id = s.agent_id) THEN 'its agent is not there'
      WHEN length(s.package_type) NOT BETWEEN 1 AND 50 OR s.package_name = '' THEN 'its name is empty'
      WHEN EXISTS (SELECT FROM updates u WHERE u.agent_id = s.agent_id AND u.package_type = s.package_type AND u.package_name = s.package_name)
        THEN 'a newer state of this package is there'
      WHEN row_number() OVER (PARTITION BY s.agent_id, s.package_type, s.package_name ORDER BY s.discovered_at DESC NULLS LAST, s.id) > 1
        THEN 'a newer offer for this package is imported' END AS fate
  FROM staged_update_packages s
) j WHERE j.id = s.id AND j.fate IS NOT NULL;

-- name: insert_update_packages
-- Updates as the older table had them.
INSERT INTO updates (id, agent_id, package_type, package_name, description, current_version, available_version, severity, cve_list, kb_id,
  repository_source, size_bytes, metadata, status, reason, approved_version, first_seen_at, last_seen_at, status_at, act)
SELECT s.id, s.agent_id, s.package_type, s.package_name, left(coalesce(s.description, ''), 4000), coalesce(s.current_version, ''),
  coalesce(s.available_version, ''), coalesce(v.word, 'unknown'), coalesce(array_remove(s.cve_list, NULL), '{}'), coalesce(s.kb_id, ''),
  coalesce(s.repository_source, ''), CASE WHEN s.size_bytes >= 0 THEN s.size_bytes END,
  s.metadata || CASE WHEN v.word IS NULL AND s.severity <> '' THEN jsonb_build_object('reported_severity', s.severity) ELSE '{}' END,
  coalesce(nullif(w.ours, 'dependencies'), 'pending'),
  CASE WHEN w.ours IS NULL THEN 'RedFlag called it ' || left(s.status, 100)
       WHEN s.status = 'installing' THEN 'RedFlag had begun to install it; how that ended is not known'
       WHEN w.ours = 'failed' THEN left(coalesce(nullif(s.error_message, ''), 'it failed in RedFlag'), 500)
       WHEN w.ours = 'rejected' THEN s.status || ' in RedFlag' END,
  CASE WHEN w.ours = 'approved' THEN s.available_version END,
  coalesce(s.discovered_at AT TIME ZONE :zone, now()), coalesce(s.discovered_at AT TIME ZONE :zone, now()),
  coalesce(s.changed_at AT TIME ZONE :zone, now()), jsonb_build_object('action', 'update_imported')
FROM staged_update_packages s
  LEFT JOIN unnest(:their_statuses::text[], :our_statuses::text[]) AS w (theirs, ours) ON w.theirs = s.status
  LEFT JOIN unnest(:severities::text[]) AS v (word) ON v.word = lower(btrim(s.severity))
WHERE s.fate IS NULL;

-- name: judge_update_version_history
-- A version keeps its id.
UPDATE staged_update_version_history s SET fate = CASE
  WHEN EXISTS (SELECT FROM update_versions v WHERE v.id = s.id) THEN 'already there' ELSE 'its status is unknown here: ' || s.update_status END
WHERE EXISTS (SELECT FROM update_versions v WHERE v.id = s.id) OR NOT s.update_status = ANY (:their_versions::text[]);

-- name: insert_update_version_history
-- What was installed, or failed to be.
INSERT INTO update_versions (id, agent_id, package_type, package_name, version_from, version_to, severity, event, reason, command_id, seen_at)
SELECT s.id, s.agent_id, s.package_type, s.package_name, s.version_from, s.version_to, coalesce(v.word, 'unknown'), w.ours,
  left(coalesce(nullif(s.failure_reason, ''), s.metadata ->> 'failure_reason', CASE WHEN s.update_status = 'rollback' THEN 'rolled back' END), 500),
  CASE WHEN pg_input_is_valid(s.metadata ->> 'command_id', 'uuid') THEN (s.metadata ->> 'command_id')::uuid END,
  coalesce(s.update_completed_at, s.update_initiated_at, now())
FROM staged_update_version_history s
  JOIN unnest(:their_versions::text[], :our_versions::text[]) AS w (theirs, ours) ON w.theirs = s.update_status
  LEFT JOIN unnest(:severities::text[]) AS v (word) ON v.word = lower(btrim(s.severity))
WHERE s.fate IS NULL;

-- name: judge_update_events
-- A version keeps its id.
UPDATE staged_update_events s SET fate = CASE
  WHEN EXISTS (SELECT FROM update_versions v WHERE v.id = s.id) THEN 'already there' ELSE 'it says nothing of a version: ' || s.event_type END
WHERE EXISTS (SELECT FROM update_versions v WHERE v.id = s.id) OR NOT s.event_type = ANY (:their_events::text[]);

-- name: insert_update_events
-- What became available, was installed, or failed.
INSERT INTO update_versions (id, agent_id, package_type, package_name, version_from, version_to, severity, event, seen_at)
SELECT s.id, s.agent_id, s.package_type, s.package_name, coalesce(s.version_from, ''), s.version_to, coalesce(v.word, 'unknown'), w.ours,
  coalesce(s.created_at, now())
FROM staged_update_events s
  JOIN unnest(:their_events::text[], :our_events::text[]) AS w (theirs, ours) ON w.theirs = s.event_type
  LEFT JOIN unnest(:severities::text[]) AS v (word) ON v.word = lower(btrim(s.severity))
WHERE s.fate IS NULL;

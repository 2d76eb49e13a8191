-- name: next_packages
-- The next packages that have updates in these states and of these severities: for each step one look into every group of the two.
WITH RECURSIVE groups AS MATERIALIZED (
  SELECT status, severity FROM unnest(:statuses::text[]) AS status, unnest(:severities::text[]) AS severity
), walk AS (
  SELECT coalesce(:after_name::text, '') AS package_name, coalesce(:after_type::text, '') AS package_type, 0 AS step
  UNION ALL
  SELECT n.package_name, n.package_type, w.step + 1
  FROM walk w CROSS JOIN LATERAL (
    SELECT f.package_name, f.package_type
    FROM groups g CROSS JOIN LATERAL (
      SELECT u.package_name, u.package_type FROM updates u
      WHERE NOT u.agent_removed AND u.status = g.status AND u.severity = g.severity AND (u.package_name, u.package_type) > (w.package_name, w.package_type)
      ORDER BY u.package_name, u.package_type LIMIT 1
    ) f
    ORDER BY f.package_name, f.package_type LIMIT 1
  ) n
  WHERE w.step < :limit
)
SELECT package_name, package_type FROM walk WHERE step > 0 ORDER BY step;

-- name: find_packages
-- The next packages of a name or a type that have updates in these states and of these severities. It goes from package to package,
-- however many agents each is on, and ends where enough were found: what is read of a recursion is all that is made of it.
WITH RECURSIVE groups AS MATERIALIZED (
  SELECT status, severity FROM unnest(:statuses::text[]) AS status, unnest(:severities::text[]) AS severity
), walk AS (
  SELECT coalesce(:after_name::text, '') AS package_name, coalesce(:after_type::text, '') AS package_type, 0 AS step
  UNION ALL
  SELECT n.package_name, n.package_type, w.step + 1
  FROM walk w CROSS JOIN LATERAL (
    SELECT u.package_name, u.package_type FROM updates u
    WHERE (u.package_name, u.package_type) > (w.package_name, w.package_type)
    ORDER BY u.package_name, u.package_type LIMIT 1
  ) n
)
SELECT w.package_name, w.package_type
FROM walk w CROSS JOIN LATERAL (
  SELECT FROM groups g CROSS JOIN LATERAL (
    SELECT FROM updates u
    WHERE NOT u.agent_removed AND u.status = g.status AND u.severity = g.severity AND u.package_name = w.package_name
      AND u.package_type = w.package_type
    LIMIT 1
  ) f
  LIMIT 1
) there
WHERE w.step > 0 AND (:text::text IS NULL OR w.package_name ILIKE :text) AND (:package_type::text IS NULL OR w.package_type = :package_type)
LIMIT :limit;

-- name: groups
-- How many agents have an update of these packages by state and severity, counted up to a limit each; and of some of them, in the
-- states that are asked for, the versions that are offered and the CVEs.
SELECT p.package_name, p.package_type, status, severity, c.agents, s.versions, s.cves
FROM unnest(:names::text[], :types::text[]) AS p (package_name, package_type), unnest(:all_statuses::text[]) AS status,
  unnest(:severities::text[]) AS severity
  CROSS JOIN LATERAL (
    SELECT count(*) AS agents FROM (
      SELECT FROM updates u
      WHERE NOT u.agent_removed AND u.status = status.status AND u.severity = severity.severity AND u.package_name = p.package_name
        AND u.package_type = p.package_type
      LIMIT :most::bigint
    ) counted
  ) c
  CROSS JOIN LATERAL (
    SELECT array_agg(DISTINCT v.available_version) AS versions, array_agg(DISTINCT v.cve) FILTER (WHERE v.cve IS NOT NULL) AS cves
    FROM (
      SELECT sampled.available_version, cve
      FROM (
        SELECT u.available_version, u.cve_list FROM updates u
        WHERE c.agents > 0 AND status.status = ANY (:statuses::text[]) AND NOT u.agent_removed
          AND u.status = status.status AND u.severity = severity.severity AND u.package_name = p.package_name
          AND u.package_type = p.package_type
        LIMIT :sample::bigint
      ) sampled LEFT JOIN LATERAL unnest(sampled.cve_list) AS cve ON true
    ) v
  ) s
WHERE c.agents > 0;

-- name: next_keys
-- Where the next updates in these states and of these severities are: one look into each group of the two, in the order of packages.
SELECT f.package_name, f.package_type, f.agent_id
FROM unnest(:statuses::text[]) AS status, unnest(:severities::text[]) AS severity
  CROSS JOIN LATERAL (
    SELECT u.package_name, u.package_type, u.agent_id FROM updates u
    WHERE NOT u.agent_removed AND u.status = status.status AND u.severity = severity.severity
      AND (u.package_name, u.package_type, u.agent_id)
        > (coalesce(:after_name::text, ''), coalesce(:after_type::text, ''), coalesce(:after_agent::uuid, '00000000-0000-0000-0000-000000000000'))
    ORDER BY u.package_name, u.package_type, u.agent_id LIMIT :limit
  ) f
ORDER BY f.package_name, f.package_type, f.agent_id LIMIT :limit;

-- name: keys_of
-- Where the updates of these packages in these states and of these severities are; of the first package from an agent on.
SELECT p.package_name, p.package_type, f.agent_id
FROM unnest(:names::text[], :types::text[]) WITH ORDINALITY AS p (package_name, package_type, place),
  unnest(:statuses::text[]) AS status, unnest(:severities::text[]) AS severity
  CROSS JOIN LATERAL (
    SELECT u.agent_id FROM updates u
    WHERE NOT u.agent_removed AND u.status = status.status AND u.severity = severity.severity
      AND u.package_name = p.package_name AND u.package_type = p.package_type
      AND u.agent_id > CASE WHEN p.place = 1 THEN coalesce(:after_agent::uuid, '00000000-0000-0000-0000-000000000000')
        ELSE '00000000-0000-0000-0000-000000000000' END
    ORDER BY u.agent_id LIMIT :limit
  ) f
ORDER BY p.package_name, p.package_type, f.agent_id LIMIT :limit;

-- name: updates_at
-- The updates at these places, by package and agent.
SELECT u.id, u.agent_id, coalesce(a.name, a.hostname) AS agent_name, u.package_type, u.package_name, u.description, u.current_version,
  u.available_version, u.severity, u.cve_list, u.kb_id, u.repository_source, u.size_bytes, u.status, u.reason, u.approved_version,
  u.dependencies, u.install_wanted_by, u.command_id, u.first_seen_at, u.last_seen_at, u.status_at
FROM unnest(:names::text[], :types::text[], :agents::uuid[]) AS k (package_name, package_type, agent_id)
  CROSS JOIN LATERAL (SELECT * FROM updates u
    WHERE u.agent_id = k.agent_id AND u.package_type = k.package_type AND u.package_name = k.package_name OFFSET 0) u
  JOIN agents a ON a.id = u.agent_id
ORDER BY u.package_name, u.package_type, u.agent_id;

-- name: ids_at
-- The ids of the updates at these places, in their order.
SELECT u.id FROM unnest(:names::text[], :types::text[], :agents::uuid[]) WITH ORDINALITY AS k (package_name, package_type, agent_id, place)
  CROSS JOIN LATERAL (SELECT id FROM updates u
    WHERE u.agent_id = k.agent_id AND u.package_type = k.package_type AND u.package_name = k.package_name OFFSET 0) u
ORDER BY k.place;

-- name: ids_on
-- The ids of an agent's updates that match, by package.
SELECT u.id FROM updates u JOIN agents a ON a.id = u.agent_id AND a.removed_at IS NULL
WHERE u.agent_id = :agent_id AND u.status = ANY (:statuses::text[]) AND u.severity = ANY (:severities::text[])
  AND (:text::text IS NULL OR u.package_name ILIKE :text)
  AND (:package_type::text IS NULL OR u.package_type = :package_type)
ORDER BY u.package_name, u.package_type LIMIT :limit;

-- name: hold_agent
-- Reports of one agent are taken one after the other; those of different agents never wait for each other.
SELECT id, pg_advisory_xact_lock(hashtextextended('updates of ' || id::text, 0)) FROM agents WHERE id = :agent_id AND removed_at IS NULL;

-- name: take_report
-- A scan in one statement: what is new is added, what differs is changed, what is no longer listed of a type that was covered
-- completely is up to date or gone. Only what differs is read in full; only rows that change are locked, in the order of their
-- ids. A command whose row this statement cannot see was enqueued a moment ago: it is live.
WITH scan AS MATERIALIZED (
  SELECT sent_at FROM agent_commands WHERE id = :command_id::uuid AND agent_id = :agent_id
), told AS MATERIALIZED (
  SELECT * FROM unnest(:types::text[], :names::text[], :digests::bigint[], :items::text[]) AS t (package_type, package_name, digest, item)
), met AS MATERIALIZED (
  -- OFFSET 0 keeps this one look-up by key for each item, however wrong the planner's idea of their number is
  SELECT u.id, t.*
  FROM told t LEFT JOIN LATERAL (
    SELECT id, digest, status, last_seen_at FROM updates
    WHERE agent_id = :agent_id AND package_type = t.package_type AND package_name = t.package_name OFFSET 0
  ) u ON true
  WHERE u.id IS NULL OR u.digest IS DISTINCT FROM t.digest OR u.last_seen_at < now() - interval '1 hour'
    OR u.status = ANY ('{installing,unconfirmed,installed}')
), touched AS MATERIALIZED (
  SELECT true AS listed, id, digest, item FROM met WHERE id IS NOT NULL
  UNION ALL
  SELECT false, u.id, u.digest, NULL
  FROM updates u
  WHERE u.agent_id = :agent_id AND u.package_type = ANY (:complete::text[])
    AND u.status = ANY ('{pending,dependencies,approved,installing,unconfirmed,failed}')
    AND (u.package_type, u.package_name) NOT IN (SELECT package_type, package_name FROM told)
    AND (u.package_type, u.package_name) NOT IN (SELECT * FROM unnest(:spared_types::text[], :spared_names::text[]))
), held AS MATERIALIZED (
  SELECT t.listed, t.digest, u.id, u.package_type, u.package_name, u.status, u.approved_version, u.command_id, u.status_at,
    u.current_version AS was_current, u.available_version AS was_available,
    coalesce(i.description, u.description) AS description, coalesce(i.current_version, u.current_version) AS current_version,
    coalesce(i.available_version, u.available_version) AS available_version, coalesce(i.severity, u.severity) AS severity,
    coalesce(i.cve_list, u.cve_list) AS cve_list, coalesce(i.kb_id, u.kb_id) AS kb_id,
    coalesce(i.repository_source, u.repository_source) AS repository_source,
    CASE WHEN t.listed THEN i.size_bytes ELSE u.size_bytes END AS size_bytes, coalesce(i.metadata, u.metadata) AS metadata,
    t.listed AND (u.digest IS DISTINCT FROM t.digest OR u.last_seen_at < now() - interval '1 hour') AS differs
  FROM touched t JOIN updates u ON u.id = t.id
    LEFT JOIN LATERAL jsonb_to_record(t.item::jsonb) AS i (description text, current_version text, available_version text, severity text,
      cve_list text[], kb_id text, repository_source text, size_bytes bigint, metadata jsonb) ON true
  ORDER BY u.id FOR UPDATE OF u
), judged AS MATERIALIZED (
  SELECT h.*,
    -- Another version is there than at the last scan
    h.listed AND h.current_version <> '' AND h.was_current <> '' AND h.current_version <> h.was_current AS moved,
    h.listed AND (h.available_version = '' OR h.available_version <> h.current_version) AS offered,
    h.status = ANY ('{installing,dependencies}') AND h.command_id IS NOT NULL
      AND coalesce((SELECT c.next_deadline_at IS NOT NULL FROM agent_commands c WHERE c.id = h.command_id), true) AS live,
    -- The scan was handed out after the installation had ended
    h.listed AND h.status = ANY ('{installing,unconfirmed}')
      AND coalesce((SELECT s.sent_at FROM scan s)
        > greatest(h.status_at, (SELECT c.completed_at FROM agent_commands c WHERE c.id = h.command_id)), false) AS after
  FROM held h
), decided AS MATERIALIZED (
  SELECT j.*, CASE
      WHEN j.live THEN j.status
      WHEN NOT j.listed THEN 'installed'
      WHEN j.status = 'installed' AND j.offered THEN 'pending'
      WHEN j.status = 'unconfirmed' AND j.moved AND j.offered THEN 'pending'
      WHEN j.status = ANY ('{installing,unconfirmed}') AND j.moved THEN 'installed'
      WHEN j.status = ANY ('{installing,unconfirmed}') AND j.after THEN 'failed'
      -- Somebody installed by hand what was decided on: what is offered now was not
      WHEN j.status = ANY ('{approved,dependencies,failed}') AND j.moved AND j.current_version IN (j.was_available, j.approved_version)
        THEN CASE WHEN j.offered THEN 'pending' ELSE 'installed' END
      ELSE j.status
    END AS becomes
  FROM judged j
), changed AS (
  UPDATE updates u SET
    description = d.description, current_version = d.current_version, available_version = d.available_version, severity = d.severity,
    cve_list = d.cve_list, kb_id = d.kb_id, repository_source = d.repository_source, size_bytes = d.size_bytes, metadata = d.metadata,
    digest = d.digest,
    last_seen_at = CASE WHEN d.listed THEN now() ELSE u.last_seen_at END,
    status = d.becomes,
    reason = CASE
      WHEN d.becomes = d.status THEN u.reason
      WHEN d.becomes = 'failed' THEN 'still listed as an update after the installation'
      WHEN d.becomes = 'pending' AND d.moved
        THEN d.current_version || ' is installed, ' || coalesce(nullif(d.available_version, ''), 'another version') || ' is available'
      WHEN d.becomes = 'pending' AND d.available_version <> d.was_available THEN d.available_version || ' became available'
      WHEN d.becomes = 'pending' THEN 'offered again'
      WHEN d.moved THEN 'confirmed by a scan: ' || d.current_version || ' is installed'
      WHEN d.status = ANY ('{installing,unconfirmed}') THEN 'confirmed by a scan: no longer listed as an update'
      ELSE 'no longer offered: up to date or removed' END,
    approved_version = CASE WHEN d.becomes = 'pending' AND d.status <> 'pending' THEN NULL ELSE u.approved_version END,
    dependencies = CASE WHEN d.becomes <> d.status OR (d.available_version <> d.was_available AND d.status <> ALL ('{dependencies,installing}'))
      THEN NULL ELSE u.dependencies END,
    install_wanted_by = CASE WHEN d.becomes = d.status THEN u.install_wanted_by END,
    act = CASE WHEN d.becomes = d.status THEN u.act ELSE :act END
  FROM decided d
  WHERE u.id = d.id AND (d.differs OR d.becomes <> d.status)
), added AS (
  INSERT INTO updates (agent_id, package_type, package_name, digest, description, current_version, available_version, severity, cve_list,
    kb_id, repository_source, size_bytes, metadata)
  SELECT :agent_id, m.package_type, m.package_name, m.digest, i.*
  FROM met m CROSS JOIN LATERAL jsonb_to_record(m.item::jsonb) AS i (description text, current_version text, available_version text,
    severity text, cve_list text[], kb_id text, repository_source text, size_bytes bigint, metadata jsonb)
  WHERE m.id IS NULL ORDER BY m.package_type, m.package_name
  RETURNING package_type, package_name, current_version, available_version, severity
), noted AS (
  INSERT INTO update_versions (agent_id, package_type, package_name, version_from, version_to, severity, event, reason, command_id)
  SELECT :agent_id, package_type, package_name, was_current, CASE WHEN moved THEN current_version ELSE was_available END, severity, 'installed',
    CASE WHEN status = ANY ('{installing,unconfirmed}') THEN NULL ELSE 'seen by a scan, not installed from here' END,
    CASE WHEN status = ANY ('{installing,unconfirmed}') THEN command_id END
  FROM decided WHERE becomes <> status AND (becomes = 'installed' OR (becomes = 'pending' AND status <> 'installed'))
  UNION ALL
  SELECT :agent_id, package_type, package_name, was_current, was_available, severity, 'failed', 'still listed as an update after the installation', command_id
  FROM decided WHERE becomes = 'failed' AND status <> 'failed'
  UNION ALL
  SELECT :agent_id, package_type, package_name, current_version, available_version, severity, 'available', NULL, :command_id
  FROM decided WHERE listed AND (available_version <> was_available OR (becomes = 'pending' AND status = 'installed'))
  UNION ALL
  SELECT :agent_id, package_type, package_name, current_version, available_version, severity, 'available', NULL, :command_id
  FROM added
)
-- Of a scan that touched nothing: the updates as they are, by this statement's own view of them
SELECT CASE WHEN NOT EXISTS (SELECT FROM met) AND NOT EXISTS (SELECT FROM touched) THEN updates_state(:agent_id) END AS state;

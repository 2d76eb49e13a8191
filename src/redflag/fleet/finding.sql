-- name: plan_for_these_values
-- A plan for all filters and orders at once would read every agent; in this transaction every plan is made for its values.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true);

-- name: find
-- Agents that fit, in one of the orders, from a position on. Of the branches all but that of the order fall away in the plan, and so
-- do filters that are not given. `among`: only these. Whoever was never heard of comes last, however it is ordered.
WITH fitting AS NOT MATERIALIZED (
  SELECT a.id, a.hostname, a.name, coalesce(a.name, a.hostname) AS display_name, lower(coalesce(a.name, a.hostname)) AS called, a.os_type,
    a.os_version, a.agent_version, a.protocol, a.tags, a.created_at, a.removed_at, p.last_seen, host(p.address) AS address
  FROM agents a LEFT JOIN agent_presence p ON p.agent_id = a.id
  WHERE ((:removed::boolean AND a.removed_at IS NOT NULL) OR (NOT :removed AND a.removed_at IS NULL))
    AND (:among::uuid[] IS NULL OR a.id = ANY (:among))
    AND (:text::text IS NULL OR a.hostname ILIKE :text OR a.name ILIKE :text)
    AND (:tag::text IS NULL OR a.tags @> ARRAY[:tag])
    AND (:system::text IS NULL OR coalesce(nullif(a.os_version, ''), a.os_type) = :system)
    AND (:protocol::integer IS NULL OR a.protocol = :protocol)
    AND (:version::text IS NULL OR a.agent_version = :version)
    AND (:heard_within::interval IS NULL OR p.last_seen > now() - :heard_within)
    AND (:silent_for::interval IS NULL OR coalesce(p.last_seen, '-infinity') <= now() - :silent_for)
)
SELECT found.*, extract(epoch FROM now() - found.last_seen)::double precision AS seconds_since_seen FROM (
  (SELECT * FROM fitting WHERE :sort::text = 'name'
    AND (:after_id::uuid IS NULL OR (called, id) > ((SELECT lower(coalesce(name, hostname)) FROM agents WHERE id = :after_id), :after_id))
    ORDER BY called, id LIMIT :limit)
  UNION ALL
  (SELECT * FROM fitting WHERE :sort = '-name'
    AND (:after_id IS NULL OR (called, id) < ((SELECT lower(coalesce(name, hostname)) FROM agents WHERE id = :after_id), :after_id))
    ORDER BY called DESC, id DESC LIMIT :limit)
  UNION ALL
  (SELECT * FROM fitting WHERE :sort = 'enrolled' AND (:after_id IS NULL OR (created_at, id) > (:after_at::timestamptz, :after_id))
    ORDER BY created_at, id LIMIT :limit)
  UNION ALL
  (SELECT * FROM fitting WHERE :sort = '-enrolled' AND (:after_id IS NULL OR (created_at, id) < (:after_at, :after_id))
    ORDER BY created_at DESC, id DESC LIMIT :limit)
  UNION ALL
  (SELECT * FROM fitting WHERE :sort = 'seen' AND (:after_id IS NULL OR (coalesce(last_seen, :never::timestamptz), id) > (:after_at, :after_id))
    ORDER BY coalesce(last_seen, :never), id LIMIT :limit)
  UNION ALL
  (SELECT * FROM fitting WHERE :sort = '-seen' AND (:after_id IS NULL OR (coalesce(last_seen, :never), id) < (:after_at, :after_id))
    ORDER BY coalesce(last_seen, :never) DESC, id DESC LIMIT :limit)
  UNION ALL
  (SELECT * FROM fitting WHERE :sort = 'removed' AND (:after_id IS NULL OR (removed_at, id) < (:after_at, :after_id))
    ORDER BY removed_at DESC, id DESC LIMIT :limit)
) AS found;

-- name: longest_silent
-- Agents that were heard of longest ago, from a position on. When an agent was last heard of has no index, so that check-ins touch
-- none: this reads the narrow table of presence as a whole, and no other.
SELECT agent_id FROM agent_presence
WHERE (:after_id::uuid IS NULL OR (last_seen, agent_id) > (:after_at::timestamptz, :after_id))
  AND (:heard_within::interval IS NULL OR last_seen > now() - :heard_within)
  AND (:silent_for::interval IS NULL OR last_seen <= now() - :silent_for)
ORDER BY last_seen, agent_id LIMIT :limit;

-- name: last_heard
-- Agents that were heard of last, from a position on.
SELECT agent_id FROM agent_presence
WHERE (:after_id::uuid IS NULL OR (last_seen, agent_id) < (:after_at::timestamptz, :after_id))
  AND (:heard_within::interval IS NULL OR last_seen > now() - :heard_within)
  AND (:silent_for::interval IS NULL OR last_seen <= now() - :silent_for)
ORDER BY last_seen DESC, agent_id DESC LIMIT :limit;

-- name: enrolled_with
-- Agents that came with an enrolment token, the last one first.
SELECT a.id, a.hostname, coalesce(a.name, a.hostname) AS display_name, a.os_type, a.os_version, a.agent_version, a.protocol, a.created_at,
  a.removed_at, p.last_seen, host(p.address) AS address, extract(epoch FROM now() - p.last_seen)::double precision AS seconds_since_seen
FROM agents a LEFT JOIN agent_presence p ON p.agent_id = a.id
WHERE a.enrolled_with = :token_id
ORDER BY a.created_at DESC, a.id DESC LIMIT :limit;

-- name: facets
-- What agents can be filtered by: tags, systems and versions, each with how many agents have it, the most frequent first.
WITH here AS MATERIALIZED (
  SELECT tags, coalesce(nullif(os_version, ''), os_type) AS system, protocol, agent_version FROM agents WHERE removed_at IS NULL
)
(SELECT 'tag' AS what, tag AS value, 0 AS protocol, count(*) AS agents FROM here, unnest(tags) AS tag GROUP BY tag ORDER BY count(*) DESC, tag LIMIT :most)
UNION ALL
(SELECT 'system', system, 0, count(*) FROM here WHERE system <> '' GROUP BY system ORDER BY count(*) DESC, system LIMIT :most)
UNION ALL
(SELECT 'version', agent_version, protocol, count(*) FROM here GROUP BY agent_version, protocol ORDER BY count(*) DESC, agent_version LIMIT :most);

-- name: enrol
-- A new agent; tells whether its enrolment token asks for a scan at once.
INSERT INTO agents (id, hostname, os_type, os_version, os_architecture, agent_version, protocol, metadata, enrolled_with, act)
VALUES (:id, :hostname, :os_type, :os_version, :os_architecture, :agent_version, :protocol, :metadata, :enrolled_with, :act)
RETURNING (SELECT t.first_scan FROM enrolment_tokens t WHERE t.id = agents.enrolled_with);

-- name: agent
-- One agent with its presence.
SELECT a.id, a.hostname, a.name, coalesce(a.name, a.hostname) AS display_name, a.os_type, a.os_version, a.os_architecture, a.agent_version,
  a.protocol, a.tags, a.metadata, a.created_at, a.removed_at, p.last_seen, host(p.address) AS address, p.metrics, p.rapid_until,
  extract(epoch FROM now() - p.last_seen)::double precision AS seconds_since_seen
FROM agents a LEFT JOIN agent_presence p ON p.agent_id = a.id
WHERE a.id = :id;

-- name: list_agents
-- Agents in the order of their enrolment, from a position on.
SELECT a.id, a.hostname, a.name, coalesce(a.name, a.hostname) AS display_name, a.os_type, a.os_version, a.os_architecture, a.agent_version,
  a.protocol, a.tags, a.created_at, a.removed_at, p.last_seen, host(p.address) AS address,
  extract(epoch FROM now() - p.last_seen)::double precision AS seconds_since_seen
FROM agents a LEFT JOIN agent_presence p ON p.agent_id = a.id
WHERE (:removed::boolean OR a.removed_at IS NULL)
  AND (:text::text IS NULL OR a.hostname ILIKE :text OR a.name ILIKE :text)
  AND (:tag::text IS NULL OR :tag = ANY (a.tags))
  AND (:after_at::timestamptz IS NULL OR (a.created_at, a.id) > (:after_at, :after_id::uuid))
ORDER BY a.created_at, a.id LIMIT :limit;

-- name: tagged
-- The agents that have a tag, up to so many.
SELECT id FROM agents WHERE removed_at IS NULL AND :tag::text = ANY (tags) ORDER BY id LIMIT :limit;

-- name: named
-- Some agents by their ids, as far as they are there.
SELECT a.id, coalesce(a.name, a.hostname) AS display_name, a.os_type, a.tags, extract(epoch FROM now() - p.last_seen)::double precision AS seconds_since_seen
FROM agents a LEFT JOIN agent_presence p ON p.agent_id = a.id
WHERE a.id = ANY (:ids::uuid[]) AND a.removed_at IS NULL
ORDER BY display_name, a.id;

-- name: names
-- What some agents are called.
SELECT id, coalesce(name, hostname) AS display_name FROM agents WHERE id = ANY (:ids::uuid[]);

-- name: called
-- The agents that are called just so, whatever its case: enough of them to see that it is more than one.
SELECT id FROM agents WHERE lower(hostname) = lower(:name::text) OR lower(name) = lower(:name::text) ORDER BY removed_at NULLS FIRST, created_at LIMIT 3;

-- name: rename
-- What people call it, and how they group it; NULL leaves as it is.
UPDATE agents SET name = coalesce(:name, name), tags = coalesce(:tags::text[], tags), act = :act
WHERE id = :id AND removed_at IS NULL
RETURNING id;

-- name: tag
-- Gives and takes tags of many agents at once; only those that this changes are written. In the order of their ids, so that two who
-- do this never wait for each other in a ring.
WITH held AS MATERIALIZED (
  SELECT id, coalesce(name, hostname) AS display_name, tags,
    ARRAY(SELECT DISTINCT t FROM unnest(tags || :added::text[]) AS t WHERE t <> ALL (:taken::text[]) ORDER BY t) AS becomes
  FROM agents WHERE id = ANY (:agents::uuid[]) AND removed_at IS NULL ORDER BY id FOR UPDATE
), changed AS (
  UPDATE agents a SET tags = h.becomes, act = :act FROM held h
  WHERE a.id = h.id AND NOT (h.becomes @> a.tags AND a.tags @> h.becomes) AND cardinality(h.becomes) <= :most::integer
  RETURNING a.id
)
SELECT h.id, h.display_name, cardinality(h.becomes) > :most AND NOT h.tags @> h.becomes AS too_many, c.id IS NOT NULL AS changed
FROM held h LEFT JOIN changed c ON c.id = h.id;

-- name: remove
-- An agent that is removed keeps its row and its history.
UPDATE agents SET removed_at = now(), act = :act WHERE id = :id AND removed_at IS NULL RETURNING id;

-- name: facts
-- What an agent says about its host; only a change is written.
UPDATE agents SET metadata = metadata || :facts::jsonb,
  agent_version = coalesce(nullif(:agent_version::text, ''), agent_version), os_version = coalesce(nullif(:os_version::text, ''), os_version)
WHERE id = :id AND octet_length((metadata || :facts)::text) <= 131072 AND (NOT metadata @> :facts::jsonb OR agent_version IS DISTINCT FROM coalesce(nullif(:agent_version, ''), agent_version)
  OR os_version IS DISTINCT FROM coalesce(nullif(:os_version, ''), os_version));

-- name: online
-- How many agents were heard of lately, how many are late, and how many are lost.
SELECT count(*) FILTER (WHERE p.last_seen > now() - :online::interval) AS online,
  count(*) FILTER (WHERE p.last_seen <= now() - :online::interval AND p.last_seen > now() - :lost::interval) AS late,
  count(*) FILTER (WHERE p.last_seen IS NULL OR p.last_seen <= now() - :lost::interval) AS lost
FROM agents a LEFT JOIN agent_presence p ON p.agent_id = a.id WHERE a.removed_at IS NULL;

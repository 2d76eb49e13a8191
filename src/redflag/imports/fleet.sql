-- name: judge_agents
-- An agent keeps its id: one that has it is the same.
UPDATE staged_agents s SET fate = 'already there' WHERE EXISTS (SELECT FROM agents a WHERE a.id = s.id);

-- name: insert_agents
-- Agents of RedFlag's protocol, with their tags. The metadata keeps all that RedFlag knew of the host.
INSERT INTO agents (id, hostname, os_type, os_version, os_architecture, agent_version, protocol, tags, metadata, created_at, act)
SELECT s.id, left(coalesce(nullif(btrim(s.hostname), ''), s.id::text), 255), coalesce(s.os_type, ''), coalesce(s.os_version, ''),
  coalesce(s.os_architecture, ''), coalesce(s.agent_version, ''), 0,
  ARRAY(SELECT t.tag FROM staged_agent_tags t WHERE t.agent_id = s.id AND t.fate IS NULL ORDER BY t.tag), s.metadata,
  coalesce(s.created_at AT TIME ZONE :zone, now()), jsonb_build_object('action', 'agent_imported')
FROM staged_agents s WHERE s.fate IS NULL ORDER BY s.created_at, s.id;

-- name: insert_presence
-- When each was last heard of, and what it said of itself then.
INSERT INTO agent_presence (agent_id, last_seen, metrics)
SELECT s.id, least(s.last_seen AT TIME ZONE :zone, now()), (SELECT jsonb_object_agg(key, value) FROM jsonb_each(s.metadata) WHERE key = ANY (:metrics::text[]))
FROM staged_agents s WHERE s.fate IS NULL AND s.last_seen IS NOT NULL
ON CONFLICT (agent_id) DO NOTHING;

-- name: judge_agent_tags
-- Tags come with their agent; one that was here before is tagged here.
UPDATE staged_agent_tags t SET fate = CASE
  WHEN EXISTS (SELECT FROM agents a WHERE a.id = t.agent_id AND t.tag = ANY (a.tags)) THEN 'already there'
  WHEN NOT EXISTS (SELECT FROM staged_agents s WHERE s.id = t.agent_id) THEN 'its agent is not there'
  WHEN t.tag = '' THEN 'it is empty'
  ELSE 'its agent was here before, and keeps the tags that it has here' END
WHERE t.tag = '' OR NOT EXISTS (SELECT FROM staged_agents s WHERE s.id = t.agent_id AND s.fate IS NULL);

-- name: insert_agent_tags
-- They came with their agents: counts them.
SELECT count(*) FROM staged_agent_tags t JOIN agents a ON a.id = t.agent_id AND t.tag = ANY (a.tags) WHERE t.fate IS NULL;

-- name: judge_refresh_tokens
-- Tokens come with their agent only: an agent that was removed here must not get its tokens back.
WITH judged AS (
  SELECT s.id, CASE
      WHEN s.token_hash !~ '^[0-9a-f]{64}$' THEN 'its hash is no SHA-256'
      WHEN EXISTS (SELECT FROM agent_tokens t WHERE t.token_hash = decode(s.token_hash, 'hex')) THEN 'already there'
      WHEN a.id IS NULL THEN 'its agent is not there'
      WHEN a.fate IS NOT NULL THEN 'its agent was here before, and keeps the tokens that it has here'
      WHEN s.expires_at AT TIME ZONE :zone <= now() THEN 'it ran out before the import'
      WHEN row_number() OVER (PARTITION BY s.token_hash ORDER BY s.created_at DESC, s.id) > 1 THEN 'it is there twice' END AS fate
  FROM staged_refresh_tokens s LEFT JOIN staged_agents a ON a.id = s.agent_id
)
UPDATE staged_refresh_tokens s SET fate = judged.fate FROM judged WHERE judged.id = s.id AND judged.fate IS NOT NULL;

-- name: insert_refresh_tokens
-- The hash as bytes; a revoked one stays revoked.
INSERT INTO agent_tokens (token_hash, agent_id, purpose, created_at, expires_at, revoked_at)
SELECT decode(token_hash, 'hex'), agent_id, 'refresh', coalesce(created_at AT TIME ZONE :zone, now()), expires_at AT TIME ZONE :zone,
  CASE WHEN revoked THEN now() END
FROM staged_refresh_tokens WHERE fate IS NULL;

-- name: suspects_agents
-- Agents that may hold a secret.
SELECT id, told FROM (
  SELECT id, jsonb_build_object('hostname', hostname, 'os_version', os_version, 'metadata', metadata) AS told FROM staged_agents
) AS one WHERE lower(told::text COLLATE "C") LIKE ANY (:suspicious);

-- name: clean_agents
-- Without the secrets.
UPDATE staged_agents s SET hostname = c.told ->> 'hostname', os_version = c.told ->> 'os_version', metadata = c.told -> 'metadata'
FROM unnest(:ids::uuid[], :told::jsonb[]) AS c (id, told) WHERE s.id = c.id;

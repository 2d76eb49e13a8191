-- name: principal
-- The person with this session, or the program with this API token, if it lets them in.
SELECT 'user' AS kind, s.id, u.username AS name, u.role, NULL::text AS owner_role, u.id AS user_id, u.must_change_password,
  extract(epoch FROM s.expires_at - now())::double precision AS seconds_left
FROM sessions s JOIN users u ON u.id = s.user_id
WHERE s.token_hash = :token_hash AND s.ended_at IS NULL AND s.expires_at > now() AND u.disabled_at IS NULL
UNION ALL
SELECT 'token', t.id, t.name, t.role, u.role, t.user_id, false,
  extract(epoch FROM t.expires_at - now())::double precision
FROM api_tokens t LEFT JOIN users u ON u.id = t.user_id
WHERE t.token_hash = :token_hash AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
  AND u.disabled_at IS NULL;

-- name: agent
-- The agent with this access token, if it lets it in.
SELECT t.agent_id, extract(epoch FROM t.expires_at - now())::double precision AS seconds_left
FROM agent_tokens t JOIN agents a ON a.id = t.agent_id
WHERE t.token_hash = :token_hash AND t.purpose = 'access' AND t.revoked_at IS NULL AND t.expires_at > now()
  AND a.removed_at IS NULL;

-- name: revoked
-- Agents' tokens that were revoked in the last minutes: by their own column, or because the agent was removed. Long enough
-- for a transaction that took its time.
SELECT token_hash FROM agent_tokens WHERE revoked_at > now() - interval '5 minutes'
UNION ALL
SELECT t.token_hash FROM agents a JOIN agent_tokens t ON t.agent_id = a.id WHERE a.removed_at > now() - interval '5 minutes';

-- name: issue
-- Both tokens of an agent that is there.
INSERT INTO agent_tokens (token_hash, agent_id, purpose, expires_at)
SELECT t.token_hash, a.id, t.purpose, now() + t.lasts
FROM agents a CROSS JOIN (VALUES
  (:access_hash::bytea, 'access', :access_lasts::interval), (:refresh_hash::bytea, 'refresh', :refresh_lasts::interval)
) AS t (token_hash, purpose, lasts)
WHERE a.id = :agent_id AND a.removed_at IS NULL;

-- name: renew
-- Moves the end of the refresh token and adds an access token, if it is this agent's and works.
WITH renewed AS (
  UPDATE agent_tokens t SET expires_at = now() + :refresh_lasts::interval
  FROM agents a
  WHERE a.id = t.agent_id AND a.removed_at IS NULL
    AND t.token_hash = :refresh_hash AND t.agent_id = :agent_id AND t.purpose = 'refresh'
    AND t.revoked_at IS NULL AND t.expires_at > now()
  RETURNING t.agent_id
), added AS (
  INSERT INTO agent_tokens (token_hash, agent_id, purpose, expires_at)
  SELECT :access_hash::bytea, agent_id, 'access', now() + :access_lasts::interval FROM renewed
)
SELECT EXISTS (SELECT FROM agents WHERE id = :agent_id) AS known, EXISTS (SELECT FROM renewed) AS renewed;

-- name: revoke_all
-- Every token of an agent.
UPDATE agent_tokens SET revoked_at = now() WHERE agent_id = :agent_id AND revoked_at IS NULL;

-- name: purge
-- Tokens that ended a while ago.
DELETE FROM agent_tokens WHERE expires_at < now() - interval '1 day' OR revoked_at < now() - interval '1 day';

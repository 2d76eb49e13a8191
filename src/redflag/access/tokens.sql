-- name: lock_names
-- One token is made at a time, so that no two get one name.
SELECT pg_advisory_xact_lock(hashtextextended('redflag tokens ' || current_schema(), 0));

-- name: create
-- A new token, unless a live one has its name or its user is not there.
INSERT INTO api_tokens (name, token_hash, role, created_by, user_id, expires_at, act)
SELECT :name, :token_hash, :role, :created_by, :user_id::uuid, now() + :lasts::interval, :act
WHERE NOT EXISTS (SELECT FROM api_tokens WHERE lower(name) = lower(:name) AND revoked_at IS NULL)
  AND (:user_id IS NULL OR EXISTS (SELECT FROM users WHERE id = :user_id AND disabled_at IS NULL))
RETURNING id, name, role, created_at, created_by, user_id, expires_at;

-- name: name_is_taken
-- Whether a token that was not revoked has this name.
SELECT EXISTS (SELECT FROM api_tokens WHERE lower(name) = lower(:name) AND revoked_at IS NULL);

-- name: revoke
-- Ends a token, once.
UPDATE api_tokens SET revoked_at = now(), act = :act WHERE id = :id AND revoked_at IS NULL
RETURNING id, name, role, created_at, created_by, user_id, expires_at, revoked_at;

-- name: list_tokens
-- Every token without its hash.
SELECT t.id, t.name, t.role, t.created_at, t.created_by, t.user_id, u.username, t.expires_at, t.revoked_at,
  t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now()) AND u.disabled_at IS NULL AS works
FROM api_tokens t LEFT JOIN users u ON u.id = t.user_id
ORDER BY t.created_at DESC, t.id DESC;

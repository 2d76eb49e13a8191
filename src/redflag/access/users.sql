-- name: create
-- A new user, unless somebody has the name.
INSERT INTO users (username, password_hash, role, must_change_password, act)
VALUES (:username, :password_hash, :role, :must_change_password, :act)
ON CONFLICT (lower(username)) DO NOTHING
RETURNING id, username, role, must_change_password, created_at, last_login_at, disabled_at;

-- name: has_admin
-- Whether there has ever been an admin.
SELECT EXISTS (SELECT FROM users WHERE role = 'admin');

-- name: lock_admins
-- Who may be the last admin is decided by one at a time.
SELECT pg_advisory_xact_lock(hashtextextended('redflag admins ' || current_schema(), 0));

-- name: lock
-- A statement of its own: what follows then sees every session that a log-in began before.
SELECT FROM users WHERE id = :id FOR NO KEY UPDATE;

-- name: create_first_admin
-- The first admin, under the lock.
INSERT INTO users (username, password_hash, role, must_change_password, act)
SELECT :username, :password_hash, 'admin', true, :act WHERE NOT EXISTS (SELECT FROM users WHERE role = 'admin')
ON CONFLICT (lower(username)) DO NOTHING
RETURNING id;

-- name: user
-- One user by name.
SELECT id, username, role, must_change_password, created_at, last_login_at, disabled_at
FROM users WHERE lower(username) = lower(:username);

-- name: user_by_id
-- One user by id.
SELECT id, username, role, must_change_password, created_at, last_login_at, disabled_at FROM users WHERE id = :id;

-- name: list_users
-- Every user.
SELECT id, username, role, must_change_password, created_at, last_login_at, disabled_at
FROM users ORDER BY lower(username);

-- name: set_role
-- Another role, under the lock; the last admin who can log in keeps theirs.
UPDATE users u SET role = :role, act = :act
WHERE id = :id AND role <> :role
  AND (role <> 'admin' OR disabled_at IS NOT NULL
       OR EXISTS (SELECT FROM users WHERE role = 'admin' AND disabled_at IS NULL AND id <> u.id))
RETURNING id, username, role, must_change_password, created_at, last_login_at, disabled_at;

-- name: disable
-- Disables a user, under the lock, and ends their sessions; the last admin who can log in stays.
WITH disabled AS (
  UPDATE users u SET disabled_at = now(), act = :act
  WHERE id = :id AND disabled_at IS NULL
    AND (role <> 'admin' OR EXISTS (SELECT FROM users WHERE role = 'admin' AND disabled_at IS NULL AND id <> u.id))
  RETURNING id, username, role, must_change_password, created_at, last_login_at, disabled_at
), ended AS (
  UPDATE sessions s SET ended_at = now() FROM disabled WHERE s.user_id = disabled.id AND s.ended_at IS NULL
)
SELECT * FROM disabled;

-- name: enable
-- Lets a disabled user in again.
UPDATE users SET disabled_at = NULL, act = :act WHERE id = :id AND disabled_at IS NOT NULL
RETURNING id, username, role, must_change_password, created_at, last_login_at, disabled_at;

-- name: set_password
-- Another password, and the end of every session that was begun with the one before.
WITH changed AS (
  UPDATE users SET password_hash = :password_hash, must_change_password = :must_change_password, act = :act WHERE id = :id
  RETURNING id, username, role, must_change_password, created_at, last_login_at, disabled_at
), ended AS (
  UPDATE sessions s SET ended_at = now() FROM changed WHERE s.user_id = changed.id AND s.ended_at IS NULL
)
SELECT * FROM changed;

-- name: user
-- What a log-in is checked against.
SELECT id, username, password_hash, disabled_at FROM users WHERE lower(username) = lower(:username);

-- name: begin
-- A session, if the user is as they were when the password was checked; a new hash of the same password goes with it.
WITH present AS (
  UPDATE users SET last_login_at = now(), password_hash = coalesce(:new_hash::text, password_hash),
    act = CASE WHEN :new_hash IS NULL THEN act ELSE :act::jsonb END
  WHERE id = :user_id AND disabled_at IS NULL AND password_hash = :checked_hash
  RETURNING id, role, must_change_password
), begun AS (
  INSERT INTO sessions (token_hash, user_id, expires_at)
  SELECT :token_hash, id, now() + :lasts::interval FROM present
  RETURNING id, expires_at
)
SELECT begun.id, begun.expires_at, present.role, present.must_change_password FROM begun CROSS JOIN present;

-- name: end
-- Ends one session, once.
UPDATE sessions SET ended_at = now() WHERE id = :id AND ended_at IS NULL AND expires_at > now();

-- name: change_password
-- One's own new password, if the old one is still the one that was checked; one's other sessions end.
WITH changed AS (
  UPDATE users SET password_hash = :password_hash, must_change_password = false, act = :act
  WHERE id = :id AND disabled_at IS NULL AND password_hash = :checked_hash
  RETURNING id
), ended AS (
  UPDATE sessions s SET ended_at = now() FROM changed
  WHERE s.user_id = changed.id AND s.ended_at IS NULL AND s.expires_at > now() AND s.id <> :keep
  RETURNING s.id
)
SELECT EXISTS (SELECT FROM changed) AS changed, (SELECT count(*) FROM ended) AS ended;

-- name: purge
-- Sessions that ended a while ago.
DELETE FROM sessions WHERE expires_at < now() - interval '1 day' OR ended_at < now() - interval '1 day';

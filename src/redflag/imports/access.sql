-- name: judge_registration_tokens
-- A token is known by its hash.
UPDATE staged_registration_tokens s SET fate = CASE
  WHEN EXISTS (SELECT FROM enrolment_tokens e WHERE e.token_hash = s.token_hash) THEN 'already there'
  ELSE 'it has no seats' END
WHERE s.max_seats < 1 OR EXISTS (SELECT FROM enrolment_tokens e WHERE e.token_hash = s.token_hash);

-- name: insert_registration_tokens
-- With their seats, taken ones too; what did not work any more does not begin to.
INSERT INTO enrolment_tokens (id, label, token_hash, seats, seats_used, created_at, created_by, expires_at, revoked_at, act)
SELECT id, coalesce(nullif(regexp_replace(btrim(label), '[[:cntrl:]]', ' ', 'g'), ''), 'imported'), token_hash, max_seats,
  CASE WHEN status = 'used' THEN greatest(seats_used, max_seats, 0) ELSE greatest(seats_used, 0) END, coalesce(created_at AT TIME ZONE :zone, now()),
  coalesce(nullif(created_by, ''), 'RedFlag'),
  CASE WHEN status = 'expired' THEN least(expires_at AT TIME ZONE :zone, now()) ELSE expires_at AT TIME ZONE :zone END,
  CASE WHEN revoked THEN coalesce(revoked_at AT TIME ZONE :zone, now()) END, jsonb_build_object('action', 'enrolment_token_imported')
FROM staged_registration_tokens WHERE fate IS NULL ORDER BY created_at, id;

-- name: suspects_registration_tokens
-- Labels that may hold a secret.
SELECT id, told FROM (SELECT id, jsonb_build_object('label', label, 'created_by', created_by) AS told FROM staged_registration_tokens) AS one
WHERE lower(told::text COLLATE "C") LIKE ANY (:suspicious);

-- name: clean_registration_tokens
-- Without the secrets.
UPDATE staged_registration_tokens s SET label = c.told ->> 'label', created_by = c.told ->> 'created_by'
FROM unnest(:ids::uuid[], :told::jsonb[]) AS c (id, told) WHERE s.id = c.id;

-- name: judge_registration_token_usage
-- Each is a record of its own in the history.
UPDATE staged_registration_token_usage s SET fate = 'already there' WHERE EXISTS (SELECT FROM update_logs u WHERE u.id = s.id);

-- name: insert_registration_token_usage
-- Which agent took a seat, when it did.
INSERT INTO update_logs (id, executed_at, agent_id, action, result, message, metadata)
SELECT id, coalesce(used_at AT TIME ZONE :zone, now()), agent_id, 'enrolment_token_used', 'success', 'enrolled in RedFlag',
  jsonb_build_object('original_id', id, 'subject', 'enrolment_token', 'subject_id', token_id)
FROM staged_registration_token_usage WHERE fate IS NULL ORDER BY used_at, id;

-- name: judge_users
-- A name that somebody has here is theirs, in whichever capitals.
WITH judged AS (
  SELECT s.id, CASE
      WHEN EXISTS (SELECT FROM users u WHERE u.id = s.id) THEN 'already there'
      WHEN EXISTS (SELECT FROM users u WHERE lower(u.username) = lower(s.username)) THEN 'somebody here has the name ' || s.username
      WHEN s.username !~ :username THEN 'its name is none that is allowed here'
      WHEN NOT coalesce(s.role, 'user') = ANY (:their_roles::text[]) THEN 'its role is unknown here: ' || s.role
      WHEN s.password_hash !~ '^\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}$' THEN 'its password hash is no bcrypt'
      WHEN row_number() OVER (PARTITION BY lower(s.username) ORDER BY s.created_at, s.id) > 1 THEN 'another imported user has the name ' || s.username
    END AS fate
  FROM staged_users s
)
UPDATE staged_users s SET fate = judged.fate FROM judged WHERE judged.id = s.id AND judged.fate IS NOT NULL;

-- name: insert_users
-- The bcrypt hash comes along, and is written anew at the first log-in.
INSERT INTO users (id, username, password_hash, role, must_change_password, created_at, last_login_at, act)
SELECT s.id, s.username, s.password_hash, r.ours, false, coalesce(s.created_at AT TIME ZONE :zone, now()), s.last_login AT TIME ZONE :zone,
  jsonb_build_object('action', 'user_imported')
FROM staged_users s JOIN unnest(:their_roles::text[], :our_roles::text[]) AS r (theirs, ours) ON r.theirs = coalesce(s.role, 'user')
WHERE s.fate IS NULL ORDER BY s.created_at, s.id;

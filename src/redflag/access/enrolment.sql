-- name: create
-- A new enrolment token.
INSERT INTO enrolment_tokens (label, token_hash, seats, created_by, expires_at, first_scan, act)
VALUES (:label, :token_hash, :seats, :created_by, now() + :lasts::interval, :first_scan, :act)
RETURNING id, label, seats, seats_used, created_at, created_by, expires_at;

-- name: take_seat
-- One seat of a token that works; whoever waits for the row's lock has the count checked anew.
UPDATE enrolment_tokens SET seats_used = seats_used + 1, act = :act
WHERE token_hash = :token_hash AND seats_used < seats AND expires_at > now() AND revoked_at IS NULL
RETURNING id;

-- name: revoke
-- Ends an enrolment token, once.
UPDATE enrolment_tokens SET revoked_at = now(), act = :act WHERE id = :id AND revoked_at IS NULL
RETURNING id, label, seats, seats_used, created_at, created_by, expires_at, revoked_at;

-- name: list_tokens
-- Every enrolment token without its hash.
SELECT id, label, seats, seats_used, created_at, created_by, expires_at, revoked_at,
  revoked_at IS NULL AND expires_at > now() AND seats_used < seats AS works
FROM enrolment_tokens ORDER BY created_at DESC, id DESC;

-- name: list_open
-- The enrolment tokens that work.
SELECT id, label, seats, seats_used, created_at, created_by, expires_at, first_scan
FROM enrolment_tokens WHERE revoked_at IS NULL AND expires_at > now() AND seats_used < seats
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: token
-- One enrolment token without its hash.
SELECT id, label, seats, seats_used, created_at, created_by, expires_at, revoked_at, first_scan,
  revoked_at IS NULL AND expires_at > now() AND seats_used < seats AS works
FROM enrolment_tokens WHERE id = :id;

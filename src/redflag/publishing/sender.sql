-- name: claim
-- The targets whose time has come, if there is something newer than they have. Nobody else sends to them until the claim is over.
WITH due AS (
  SELECT id FROM log_targets
  WHERE enabled AND removed_at IS NULL AND next_attempt_at <= now() AND (claimed_until IS NULL OR claimed_until <= now())
    AND acknowledged_size < (SELECT max(size) FROM audit_checkpoints)
  FOR UPDATE SKIP LOCKED
)
UPDATE log_targets t SET claimed_until = now() + :lease::interval, next_attempt_at = now() + t.every
FROM due WHERE t.id = due.id
RETURNING t.id, t.kind, t.name, t.address, t.vkey, t.secret, t.every, t.acknowledged_size, t.failures_in_a_row, t.claimed_until, now() AS now;

-- name: claim_one
-- One target, due or not, unless somebody else has claimed it.
UPDATE log_targets t SET claimed_until = now() + :lease::interval, next_attempt_at = now() + t.every
WHERE t.id = :id AND t.removed_at IS NULL AND (t.claimed_until IS NULL OR t.claimed_until <= now())
RETURNING t.id, t.kind, t.name, t.address, t.vkey, t.secret, t.every, t.acknowledged_size, t.failures_in_a_row, t.claimed_until, now() AS now;

-- name: succeeded
-- What whoever holds the claim sent.
UPDATE log_targets SET acknowledged_size = greatest(acknowledged_size, :size), last_ok_at = now(), failures_in_a_row = 0, claimed_until = NULL
WHERE id = :id AND claimed_until = :claimed_until;

-- name: failed
-- That it failed: again in 5 s, 10 s, 20 s … up to five minutes, each less up to a half of it; not before the target wants to be asked.
UPDATE log_targets SET failures = failures + 1, failures_in_a_row = failures_in_a_row + 1, last_error = :error, last_error_at = now(),
  next_attempt_at = now() + greatest(:retry_after::float8, least(300, 5 * 2 ^ least(failures_in_a_row, 10)) * (0.5 + random() / 2)) * interval '1 second',
  claimed_until = NULL
WHERE id = :id AND claimed_until = :claimed_until;

-- name: release
-- Gives a claim back, because the server stops.
UPDATE log_targets SET claimed_until = NULL, next_attempt_at = now() WHERE id = :id AND claimed_until = :claimed_until;

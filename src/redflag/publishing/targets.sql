-- name: lock
-- Which targets there may be is decided by one at a time.
SELECT pg_advisory_xact_lock(hashtextextended('redflag log targets ' || current_schema(), 0));

-- name: targets
-- Every target that was not removed, without its secret.
SELECT id, kind, name, address, vkey, every, enabled, created_at, acknowledged_size, last_ok_at, last_error, last_error_at, failures,
  failures_in_a_row, next_attempt_at
FROM log_targets WHERE removed_at IS NULL ORDER BY lower(name);

-- name: add
-- A new target, to which the newest checkpoint is sent at once.
INSERT INTO log_targets (kind, name, address, vkey, secret, every, act)
VALUES (:kind, :name, :address, :vkey, :secret, :every, :act) RETURNING id;

-- name: change
-- Changes a target. What it has waited for is over: it is tried at once.
UPDATE log_targets SET name = coalesce(:name::text, name), address = coalesce(:address::text, address), secret = coalesce(:secret::text, secret),
  every = coalesce(:every::interval, every), enabled = coalesce(:enabled::boolean, enabled), next_attempt_at = now(), failures_in_a_row = 0,
  act = :act
WHERE id = :id AND removed_at IS NULL;

-- name: remove
-- Ends a target.
UPDATE log_targets SET removed_at = now(), act = :act WHERE id = :id AND removed_at IS NULL;

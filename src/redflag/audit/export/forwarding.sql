-- name: add
-- A new receiver. It begins after what a checkpoint covers now, or at the position that is given.
INSERT INTO log_forwarders (name, host, port, transport, ca, ca_digest, body, facility, max_message, position, handed, act)
SELECT :name, :host, :port, :transport, :ca, :ca_digest, :body, :facility, :max_message, first, first, :act
FROM (SELECT coalesce(:position::bigint, (SELECT max(size) FROM audit_checkpoints), 0) AS first) AS begins
ON CONFLICT (lower(name)) WHERE removed_at IS NULL DO NOTHING
RETURNING *;

-- name: change
-- Changes what is given, and it is tried again at once. What is under way no longer counts if it goes to another place now.
UPDATE log_forwarders SET host = coalesce(:host, host), port = coalesce(:port::integer, port), transport = coalesce(:transport, transport),
  ca = CASE WHEN :new_ca::boolean THEN :ca ELSE ca END, ca_digest = CASE WHEN :new_ca THEN :ca_digest ELSE ca_digest END,
  body = coalesce(:body, body), facility = coalesce(:facility::smallint, facility), max_message = coalesce(:max_message::integer, max_message),
  enabled = coalesce(:enabled::boolean, enabled), position = coalesce(:position::bigint, position),
  claim = CASE WHEN :elsewhere::boolean THEN NULL ELSE claim END, claimed_until = CASE WHEN :elsewhere THEN NULL ELSE claimed_until END,
  retry_at = NULL, failing_since = NULL, failures = 0, act = :act
WHERE id = :id AND removed_at IS NULL
RETURNING *;

-- name: one
-- A receiver, to be changed.
SELECT * FROM log_forwarders WHERE id = :id AND removed_at IS NULL FOR UPDATE;

-- name: remove
-- Nothing more is sent to it.
UPDATE log_forwarders SET removed_at = now(), enabled = false, claim = NULL, claimed_until = NULL, act = :act
WHERE id = :id AND removed_at IS NULL;

-- name: all
-- Every receiver, how far it is, and how much it lacks of what a checkpoint covers.
SELECT f.id, f.name, f.host, f.port, f.transport, f.ca_digest, f.body, f.facility, f.max_message, f.enabled, f.created_at, f.position,
  greatest(0, newest.size - f.position) AS lag, f.last_ok_at, f.confirmed_by, f.failing_since, f.failures, f.last_error, f.last_error_at
FROM log_forwarders f, (SELECT coalesce(max(size), 0) AS size FROM audit_checkpoints) AS newest
WHERE f.removed_at IS NULL ORDER BY lower(f.name);

-- name: claim
-- Those for which there is something to send, and which nobody serves: they are the claimer's for a while.
UPDATE log_forwarders SET claim = :claim, claimed_until = now() + :lease::interval
WHERE id = ANY (ARRAY(
  SELECT id FROM log_forwarders
  WHERE enabled AND removed_at IS NULL AND position < (SELECT coalesce(max(size), 0) FROM audit_checkpoints)
    AND (retry_at IS NULL OR retry_at <= now()) AND (claimed_until IS NULL OR claimed_until <= now())
  FOR UPDATE SKIP LOCKED))
RETURNING id, name, host, port, transport, ca, body, facility, max_message, position, handed;

-- name: begin
-- Says before anything is sent how far it will go, so that after a crash everybody knows what may have arrived.
UPDATE log_forwarders SET handed = greatest(handed, :end::bigint), claimed_until = now() + :lease::interval
WHERE id = :id AND claim = :claim AND position = :position AND enabled AND removed_at IS NULL;

-- name: taken
-- The receiver has everything before this position.
UPDATE log_forwarders SET position = :end, last_ok_at = now(), confirmed_by = :confirmed_by, failing_since = NULL, failures = 0, retry_at = NULL,
  claimed_until = now() + :lease::interval
WHERE id = :id AND claim = :claim AND position = :position;

-- name: failed
-- It did not take the batch: it is tried again after a pause that doubles up to the longest. Tells since when it fails.
UPDATE log_forwarders SET failures = failures + 1, failing_since = coalesce(failing_since, now()), last_error = :error, last_error_at = now(),
  retry_at = now() + least(:longest::interval, :shortest::interval * 2 ^ least(failures, 20)), claim = NULL, claimed_until = NULL
WHERE id = :id AND claim = :claim
RETURNING failures, now() - failing_since AS failing_for;

-- name: release
-- Done for now.
UPDATE log_forwarders SET claim = NULL, claimed_until = NULL WHERE id = :id AND claim = :claim;

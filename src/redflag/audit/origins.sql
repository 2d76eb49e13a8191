-- name: openings
-- Each time that the log was closed and a new one opened, the newest first.
SELECT id, origin, opened_at, first_size, first_root, previous_origin, known_origin, known_size, known_root, known_note, abandoned, reason, actor
FROM audit_origins ORDER BY id DESC;

-- name: closing
-- How the log of a name was closed.
SELECT origin, first_size, known_origin, known_size FROM audit_origins WHERE :name IN (previous_origin, known_origin) ORDER BY id DESC LIMIT 1;

-- name: state
-- What the log is called, and how far it is.
SELECT origin, sequenced, integrated FROM audit_log;

-- name: lock
-- No step is done by anybody until the transaction ends.
SELECT FROM audit_log FOR UPDATE;

-- name: newest_signed
-- The newest checkpoint that the database has, whatever its log was called.
SELECT size, root, note FROM audit_checkpoints ORDER BY size DESC LIMIT 1;

-- name: open
-- Closes the log and opens a new one; the database fills in what it knows itself.
INSERT INTO audit_origins (id, origin, first_size, first_root, previous_origin, known_origin, known_size, known_root, known_note, abandoned, reason, actor)
VALUES (0, :origin, :first_size, :first_root, '', :known_origin, :known_size, :known_root, :known_note, :abandoned, :reason, '')
RETURNING id, previous_origin;

-- What the log was called over time. A log is closed and goes on under a new name when a restored backup took back what was
-- signed before (docs/howto/back-up-and-restore.md), or when it is to be renamed. Positions and entries go on as they are.

CREATE TABLE audit_origins (
  id              integer     NOT NULL PRIMARY KEY,
  origin          text        NOT NULL UNIQUE CHECK (length(origin) BETWEEN 1 AND 255 AND origin !~ '[[:space:][:cntrl:]+]'),
  opened_at       timestamptz NOT NULL DEFAULT now(),
  first_size      bigint      NOT NULL CHECK (first_size >= 0),
  first_root      bytea       NOT NULL CHECK (octet_length(first_root) = 32),
  previous_origin text        NOT NULL,
  known_origin    text        NOT NULL,
  known_size      bigint      NOT NULL CHECK (known_size >= 0),
  known_root      bytea       NOT NULL CHECK (octet_length(known_root) = 32),
  known_note      text        NOT NULL CHECK (length(known_note) <= 65536),
  abandoned       boolean     NOT NULL,
  reason          text        NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
  actor           text        NOT NULL,
  CONSTRAINT audit_origins_new_check CHECK (origin NOT IN (previous_origin, known_origin)),
  CONSTRAINT audit_origins_note_check CHECK (starts_with(known_note,
    known_origin || E'\n' || known_size || E'\n' || encode(known_root, 'base64') || E'\n'))
);
COMMENT ON TABLE audit_origins IS 'Each time that the log was closed and a new one opened that names the old; the newest row is today''s log. Written by `redflag audit reopen`';
COMMENT ON COLUMN audit_origins.first_size IS 'The size of the tree with which the old log was closed: the new one begins with it, and its checkpoints are larger';
COMMENT ON COLUMN audit_origins.previous_origin IS 'What the log in this database was called before';
COMMENT ON COLUMN audit_origins.known_size IS 'The newest checkpoint that anybody knew of the old log; known_origin differs from previous_origin after the restore of a backup from before a reopening';
COMMENT ON COLUMN audit_origins.abandoned IS 'Whether that checkpoint is of records which the new log does not have';

-- A checkpoint says itself of which log it is. No size is signed twice in one database, whatever the log is called.
ALTER TABLE audit_checkpoints ADD COLUMN origin text GENERATED ALWAYS AS (split_part(note, E'\n', 1)) VIRTUAL;

-- Closes the log and opens the new one: whoever does a step holds the row of audit_log, so no step is under way.
CREATE FUNCTION audit_origins_open() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  closed audit_log;
BEGIN
  SELECT * INTO closed FROM audit_log FOR UPDATE;
  IF NEW.first_size <> closed.integrated THEN
    RAISE EXCEPTION 'the tree of the log has % records, and not %', closed.integrated, NEW.first_size USING ERRCODE = 'RF004',
      HINT = 'Open a new log with `redflag audit reopen`.';
  END IF;
  IF EXISTS (SELECT FROM audit_origins o WHERE NEW.origin IN (o.origin, o.previous_origin, o.known_origin)) THEN
    RAISE EXCEPTION 'a log was called % before', NEW.origin USING ERRCODE = 'RF004', HINT = 'Choose a name that no log ever had.';
  END IF;
  NEW.id := (SELECT coalesce(max(id), 0) + 1 FROM audit_origins);
  NEW.opened_at := now();
  NEW.previous_origin := coalesce(closed.origin, NEW.known_origin);
  NEW.actor := 'db:' || session_user;
  UPDATE audit_log SET origin = NEW.origin;
  RETURN NEW;
END $$;
CREATE TRIGGER audit_origins_open BEFORE INSERT ON audit_origins FOR EACH ROW EXECUTE FUNCTION audit_origins_open();
-- The new log has in it that it was opened, and which one it goes on from
CREATE TRIGGER audit_origins_record AFTER INSERT ON audit_origins FOR EACH ROW EXECUTE FUNCTION record_change('log_origin',
  'origin', 'first_size', 'first_root', 'previous_origin', 'known_origin', 'known_size', 'known_root', 'abandoned', 'reason');
CREATE TRIGGER audit_origins_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_origins FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse();
ALTER TABLE audit_origins ENABLE ALWAYS TRIGGER audit_origins_open;
ALTER TABLE audit_origins ENABLE ALWAYS TRIGGER audit_origins_record;
ALTER TABLE audit_origins ENABLE ALWAYS TRIGGER audit_origins_refuse;

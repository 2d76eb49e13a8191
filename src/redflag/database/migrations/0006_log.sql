-- The log: records in the order in which they were given a position, the tree over them, and the checkpoints that were signed.

CREATE TABLE audit_log (
  one         boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (one),
  origin      text,
  sequenced   bigint  NOT NULL DEFAULT 0,
  integrated  bigint  NOT NULL DEFAULT 0,
  CHECK (integrated <= sequenced)
);
COMMENT ON TABLE audit_log IS 'One row: how many records have a position, and how many of those are in the tree. Whoever has it locked does the step';
INSERT INTO audit_log DEFAULT VALUES;

CREATE TABLE audit_entries (
  position    bigint      NOT NULL PRIMARY KEY CHECK (position >= 0),
  record_id   uuid        NOT NULL,
  recorded_at timestamptz NOT NULL,
  leaf        bytea       NOT NULL CHECK (octet_length(leaf) <= 8192)
);
COMMENT ON COLUMN audit_entries.leaf IS 'The record in its canonical form, as it was hashed into the tree';
CREATE UNIQUE INDEX audit_entries_record ON audit_entries (record_id);
-- Positions nearly follow the times, so that a few kilobytes lead from a period to its positions
CREATE INDEX audit_entries_recorded ON audit_entries USING brin (recorded_at) WITH (autosummarize = on);

CREATE TABLE audit_tiles (
  level  smallint NOT NULL CHECK (level BETWEEN 0 AND 63),
  index  bigint   NOT NULL CHECK (index >= 0),
  hashes bytea    NOT NULL CHECK (octet_length(hashes) BETWEEN 32 AND 8192 AND octet_length(hashes) % 32 = 0),
  PRIMARY KEY (level, index)
) WITH (fillfactor = 50);
COMMENT ON TABLE audit_tiles IS 'C2SP tlog-tiles; a partial tile is the beginning of the full one';

CREATE TABLE audit_checkpoints (
  size         bigint      NOT NULL PRIMARY KEY CHECK (size >= 0),
  root         bytea       NOT NULL CHECK (octet_length(root) = 32),
  note         text        NOT NULL,
  published_at timestamptz NOT NULL DEFAULT now()
);

-- What has a position keeps it, and what was in a tile stays in it.
CREATE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'RF003',
    HINT = 'A log that is changed is found out by everybody who kept a checkpoint of it.';
END $$;
CREATE TRIGGER audit_entries_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse();
CREATE TRIGGER audit_checkpoints_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoints FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse();
CREATE TRIGGER audit_tiles_refuse BEFORE DELETE OR TRUNCATE ON audit_tiles FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse();
ALTER TABLE audit_entries ENABLE ALWAYS TRIGGER audit_entries_refuse;
ALTER TABLE audit_checkpoints ENABLE ALWAYS TRIGGER audit_checkpoints_refuse;
ALTER TABLE audit_tiles ENABLE ALWAYS TRIGGER audit_tiles_refuse;

CREATE FUNCTION audit_tiles_grow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.level <> OLD.level OR NEW.index <> OLD.index OR substr(NEW.hashes, 1, octet_length(OLD.hashes)) <> OLD.hashes THEN
    RAISE EXCEPTION 'tile %/% only grows', OLD.level, OLD.index USING ERRCODE = 'RF003',
      HINT = 'A log that is changed is found out by everybody who kept a checkpoint of it.';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER audit_tiles_grow BEFORE UPDATE ON audit_tiles FOR EACH ROW EXECUTE FUNCTION audit_tiles_grow();
ALTER TABLE audit_tiles ENABLE ALWAYS TRIGGER audit_tiles_grow;

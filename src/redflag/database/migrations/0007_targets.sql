-- Where checkpoints are sent, so that somebody else keeps them: witnesses, files, git repositories, webhooks; and what witnesses signed.

CREATE TABLE log_targets (
  id                uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
  kind              text        NOT NULL CHECK (kind IN ('witness', 'file', 'git', 'webhook')),
  name              text        NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  address           text        NOT NULL CHECK (length(address) BETWEEN 1 AND 1000),
  vkey              text        CHECK (length(vkey) BETWEEN 1 AND 500),
  secret            text        CHECK (length(secret) BETWEEN 1 AND 200),
  every             interval    NOT NULL CHECK (every >= '1 second'),
  enabled           boolean     NOT NULL DEFAULT true,
  created_at        timestamptz NOT NULL DEFAULT now(),
  removed_at        timestamptz,
  acknowledged_size bigint      NOT NULL DEFAULT 0 CHECK (acknowledged_size >= 0),
  last_ok_at        timestamptz,
  last_error        text,
  last_error_at     timestamptz,
  failures          bigint      NOT NULL DEFAULT 0,
  failures_in_a_row integer     NOT NULL DEFAULT 0,
  next_attempt_at   timestamptz NOT NULL DEFAULT now(),
  claimed_until     timestamptz,
  act               jsonb,
  CONSTRAINT log_targets_witness_check CHECK ((kind = 'witness') = (vkey IS NOT NULL)),
  CONSTRAINT log_targets_webhook_check CHECK ((kind = 'webhook') = (secret IS NOT NULL))
) WITH (fillfactor = 50);
COMMENT ON COLUMN log_targets.address IS 'A witness''s submission prefix, a webhook''s URL, or a name below the folder of checkpoints';
COMMENT ON COLUMN log_targets.secret IS 'What a webhook''s requests are signed with; the server needs it as it is';
COMMENT ON COLUMN log_targets.every IS 'At the most one checkpoint in this time';
COMMENT ON COLUMN log_targets.claimed_until IS 'A replica sends to it until then; nobody else begins before';
CREATE UNIQUE INDEX log_targets_name ON log_targets (lower(name)) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX log_targets_vkey ON log_targets (vkey) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX log_targets_place ON log_targets (lower(address)) WHERE kind IN ('file', 'git') AND removed_at IS NULL;
CREATE TRIGGER log_targets_record AFTER INSERT OR UPDATE OR DELETE ON log_targets FOR EACH ROW
  EXECUTE FUNCTION record_change('log_target', 'kind', 'name', 'address', 'vkey', '!secret', 'every', 'enabled', 'removed_at');
ALTER TABLE log_targets ENABLE ALWAYS TRIGGER log_targets_record;

CREATE TABLE log_cosignatures (
  size        bigint      NOT NULL REFERENCES audit_checkpoints (size),
  witness     text        NOT NULL CHECK (length(witness) BETWEEN 1 AND 400),
  key_id      bytea       NOT NULL CHECK (octet_length(key_id) = 4),
  line        text        NOT NULL CHECK (length(line) <= 600),
  cosigned_at timestamptz NOT NULL,
  stored_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (size, witness)
);
COMMENT ON TABLE log_cosignatures IS 'C2SP tlog-cosignature: that a witness saw this checkpoint, and no other tree of the log before';
COMMENT ON COLUMN log_cosignatures.line IS 'The signature line as it stands in the note, without its newline';
CREATE TRIGGER log_cosignatures_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON log_cosignatures FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse();
ALTER TABLE log_cosignatures ENABLE ALWAYS TRIGGER log_cosignatures_refuse;

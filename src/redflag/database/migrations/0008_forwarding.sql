-- Where records are sent as they come, as syslog; and what leads from a period to its positions.

CREATE TABLE log_forwarders (
  id             uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
  name           text        NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  host           text        NOT NULL CHECK (length(host) BETWEEN 1 AND 255),
  port           integer     NOT NULL CHECK (port BETWEEN 1 AND 65535),
  transport      text        NOT NULL CHECK (transport IN ('tcp', 'tls')),
  ca             text        CHECK (length(ca) BETWEEN 1 AND 65536),
  ca_digest      text        CHECK (length(ca_digest) = 64),
  body           text        NOT NULL CHECK (body IN ('cloudevents', 'ocsf')),
  facility       smallint    NOT NULL CHECK (facility BETWEEN 0 AND 23),
  max_message    integer     NOT NULL CHECK (max_message BETWEEN 2048 AND 1048576),
  enabled        boolean     NOT NULL DEFAULT true,
  created_at     timestamptz NOT NULL DEFAULT now(),
  removed_at     timestamptz,
  position       bigint      NOT NULL CHECK (position >= 0),
  handed         bigint      NOT NULL CHECK (handed >= 0),
  claim          uuid,
  claimed_until  timestamptz,
  last_ok_at     timestamptz,
  confirmed_by   text,
  failing_since  timestamptz,
  failures       integer     NOT NULL DEFAULT 0,
  retry_at       timestamptz,
  last_error     text,
  last_error_at  timestamptz,
  act            jsonb,
  CONSTRAINT log_forwarders_ca_with_tls CHECK (ca IS NULL OR transport = 'tls'),
  CONSTRAINT log_forwarders_ca_with_digest CHECK ((ca IS NULL) = (ca_digest IS NULL))
) WITH (fillfactor = 50);
COMMENT ON COLUMN log_forwarders.ca IS 'The authority (PEM) that signed the receiver''s certificate; NULL: those that this machine trusts';
COMMENT ON COLUMN log_forwarders.ca_digest IS 'SHA-256 of it, which is what the record of a change says';
COMMENT ON COLUMN log_forwarders.position IS 'The receiver has every record before it, and it is where sending goes on';
COMMENT ON COLUMN log_forwarders.handed IS 'Every record from here on was never sent; those between position and this may have arrived';
COMMENT ON COLUMN log_forwarders.claim IS 'Whoever sends right now, until claimed_until';
COMMENT ON COLUMN log_forwarders.failures IS 'Failed tries in a row';
CREATE UNIQUE INDEX log_forwarders_name ON log_forwarders (lower(name)) WHERE removed_at IS NULL;
CREATE TRIGGER log_forwarders_record AFTER INSERT OR UPDATE OR DELETE ON log_forwarders FOR EACH ROW
  EXECUTE FUNCTION record_change('forwarder', 'name', 'host', 'port', 'transport', 'ca_digest', 'body', 'facility', 'max_message', 'enabled', 'removed_at');
ALTER TABLE log_forwarders ENABLE ALWAYS TRIGGER log_forwarders_record;

-- Of both columns, so that the few entries that do not stand where their time says are found without reading the others
DROP INDEX audit_entries_recorded;
CREATE INDEX audit_entries_recorded ON audit_entries USING brin (recorded_at, position) WITH (autosummarize = on);

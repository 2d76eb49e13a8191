-- The agents. An agent that is removed keeps its row, because its commands and its history speak of it.
CREATE TABLE agents (
  id              uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
  hostname        text        NOT NULL CHECK (length(hostname) BETWEEN 1 AND 255),
  name            text        CHECK (length(name) BETWEEN 1 AND 255),
  os_type         text        NOT NULL DEFAULT '',
  os_version      text        NOT NULL DEFAULT '',
  os_architecture text        NOT NULL DEFAULT '',
  agent_version   text        NOT NULL DEFAULT '',
  protocol        integer     NOT NULL DEFAULT 0,
  tags            text[]      NOT NULL DEFAULT '{}',
  metadata        jsonb       NOT NULL DEFAULT '{}',
  created_at      timestamptz NOT NULL DEFAULT now(),
  removed_at      timestamptz,
  act             jsonb
);
COMMENT ON COLUMN agents.protocol IS '0: RedFlag''s own agents, which cannot say what they hold; 1: agents of this project';
CREATE INDEX agents_created ON agents (created_at, id);
CREATE TRIGGER agents_record AFTER INSERT OR UPDATE OR DELETE ON agents FOR EACH ROW
  EXECUTE FUNCTION record_change('agent', 'hostname', 'name', 'tags', 'removed_at');
ALTER TABLE agents ENABLE ALWAYS TRIGGER agents_record;

-- When an agent was last heard of, and what it said of itself. Changed at every check-in: no index but the key, room
-- in every page, and no record.
CREATE TABLE agent_presence (
  agent_id    uuid        NOT NULL PRIMARY KEY REFERENCES agents (id) ON DELETE CASCADE,
  last_seen   timestamptz NOT NULL DEFAULT now(),
  address     inet,
  metrics     jsonb,
  rapid_until timestamptz
) WITH (fillfactor = 50);

CREATE TABLE agent_tokens (
  token_hash bytea       NOT NULL PRIMARY KEY CHECK (octet_length(token_hash) = 32),
  agent_id   uuid        NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
  purpose    text        NOT NULL CHECK (purpose IN ('access', 'refresh')),
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz
);
COMMENT ON COLUMN agent_tokens.token_hash IS 'SHA-256 of the token; access tokens live a day, refresh tokens 90 days from their last use';
CREATE INDEX agent_tokens_agent ON agent_tokens (agent_id, purpose);
CREATE INDEX agent_tokens_expiry ON agent_tokens (expires_at);
CREATE INDEX agent_tokens_revoked ON agent_tokens (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX agents_removed ON agents (removed_at) WHERE removed_at IS NOT NULL;

CREATE TABLE enrolment_tokens (
  id         uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
  label      text        NOT NULL CHECK (length(label) BETWEEN 1 AND 255),
  token_hash bytea       NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
  seats      integer     NOT NULL CHECK (seats > 0),
  seats_used integer     NOT NULL DEFAULT 0 CHECK (seats_used >= 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text        NOT NULL,
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz,
  act        jsonb
);
CREATE TRIGGER enrolment_tokens_record AFTER INSERT OR UPDATE OR DELETE ON enrolment_tokens FOR EACH ROW
  EXECUTE FUNCTION record_change('enrolment_token', 'label', 'seats', 'seats_used', '!token_hash', 'created_by', 'expires_at', 'revoked_at');
ALTER TABLE enrolment_tokens ENABLE ALWAYS TRIGGER enrolment_tokens_record;

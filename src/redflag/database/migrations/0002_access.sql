-- People, their sessions and their tokens. Secrets are kept as hashes only.
CREATE TABLE users (
  id                   uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
  username             text        NOT NULL CHECK (length(username) BETWEEN 1 AND 255),
  password_hash        text        NOT NULL,
  role                 text        NOT NULL,
  must_change_password boolean     NOT NULL DEFAULT false,
  created_at           timestamptz NOT NULL DEFAULT now(),
  last_login_at        timestamptz,
  disabled_at          timestamptz,
  act                  jsonb,
  CONSTRAINT users_role_check CHECK (role IN ('admin', 'operator', 'auditor', 'viewer'))
);
CREATE UNIQUE INDEX users_username ON users (lower(username));
CREATE TRIGGER users_record AFTER INSERT OR UPDATE OR DELETE ON users FOR EACH ROW
  EXECUTE FUNCTION record_change('user', 'username', 'role', '!password_hash', 'must_change_password', 'disabled_at');
ALTER TABLE users ENABLE ALWAYS TRIGGER users_record;

CREATE TABLE sessions (
  id         uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
  token_hash bytea       NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
  user_id    uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  ended_at   timestamptz
);
CREATE INDEX sessions_user ON sessions (user_id);

CREATE TABLE api_tokens (
  id         uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
  name       text        NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  token_hash bytea       NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
  role       text        NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text        NOT NULL,
  user_id    uuid        REFERENCES users (id) ON DELETE CASCADE,
  expires_at timestamptz,
  revoked_at timestamptz,
  act        jsonb,
  CONSTRAINT api_tokens_role_check CHECK (role IN ('admin', 'operator', 'auditor', 'viewer'))
);
CREATE UNIQUE INDEX api_tokens_name ON api_tokens (lower(name)) WHERE revoked_at IS NULL;
CREATE TRIGGER api_tokens_record AFTER INSERT OR UPDATE OR DELETE ON api_tokens FOR EACH ROW
  EXECUTE FUNCTION record_change('token', 'name', 'role', '!token_hash', 'created_by', 'user_id', 'expires_at', 'revoked_at');
ALTER TABLE api_tokens ENABLE ALWAYS TRIGGER api_tokens_record;

-- Tries by key (an address, a user name) in the current window; forgotten by a restart of the database without harm.
CREATE UNLOGGED TABLE rate_limits (
  key    text        NOT NULL PRIMARY KEY,
  since  timestamptz NOT NULL DEFAULT now(),
  tries  integer     NOT NULL DEFAULT 1
);

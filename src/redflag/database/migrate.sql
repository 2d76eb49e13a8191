-- name: has_migrations
-- Whether any migration has ever been applied here.
SELECT to_regclass('schema_migrations') IS NOT NULL;

-- name: create_migrations
-- The list of applied migrations.
CREATE TABLE IF NOT EXISTS schema_migrations (
  version    integer     NOT NULL PRIMARY KEY,
  name       text        NOT NULL,
  checksum   text        NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: applied
-- What was applied, in order.
SELECT version, name, checksum, applied_at FROM schema_migrations ORDER BY version;

-- name: record_migration
-- Recorded in the transaction of the migration itself.
INSERT INTO schema_migrations (version, name, checksum) VALUES (:version, :name, :checksum);

-- name: pin_search_path
-- Functions remember this path, so that they find their tables whoever calls them.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

-- name: set_timeouts
-- For this transaction only.
SELECT set_config('lock_timeout', :lock_timeout, true), set_config('statement_timeout', :statement_timeout, true);

-- name: name_server_role
-- Tells roles.sql whom the rights are for.
SELECT set_config('redflag.migrating_for', :role, true);

-- name: is_server
-- Whether this connection is of the one role that the triggers take for the server.
SELECT session_user = redflag_server_role()
  AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = session_user)
  AND NOT pg_has_role(session_user, (SELECT relowner FROM pg_class WHERE oid = 'update_logs'::regclass), 'MEMBER');

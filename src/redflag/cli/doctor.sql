-- name: clock
-- What the database's clock says this very moment.
SELECT clock_timestamp();

-- name: version
-- PostgreSQL's version as a number, 180006 for 18.6.
SELECT current_setting('server_version_num')::integer;

-- name: role
-- Who this connection is, and whether that is the role that the server should have.
SELECT session_user::text AS name, (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) AS superuser,
  coalesce(pg_has_role(session_user, (SELECT relowner FROM pg_class WHERE oid = to_regclass('update_logs')), 'MEMBER'), false) AS owner,
  session_user = redflag_server_role() AS is_server;

-- name: subscriptions
-- Logical replication into this database.
SELECT subname::text FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY subname;

-- name: refused
-- Records that the database refused to the server, ever.
SELECT count(*) FROM service_faults WHERE kind = 'audit_write_refused';

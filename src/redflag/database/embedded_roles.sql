-- The roles and the database of the embedded PostgreSQL; a psql script, run by the superuser, safe to run again.
-- psql variables: owner_verifier, server_verifier (SCRAM verifiers, never passwords).

-- Nothing of this session reaches the log, whatever an administrator has turned on.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SET client_min_messages = 'warning';

-- Missing things are made by a statement that a query writes, since CREATE DATABASE may not stand in a DO block.
SELECT 'CREATE ROLE redflag_owner' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'redflag_owner') \gexec
SELECT 'CREATE ROLE redflag_server' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'redflag_server') \gexec

ALTER ROLE redflag_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
  PASSWORD :'owner_verifier';
ALTER ROLE redflag_server LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
  PASSWORD :'server_verifier';

SELECT 'CREATE DATABASE redflag OWNER redflag_owner'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'redflag') \gexec
ALTER DATABASE redflag OWNER TO redflag_owner;

-- The server's role may connect to its own database and nothing more; the owner's migrations grant it the rest.
REVOKE ALL ON DATABASE redflag, postgres, template1 FROM PUBLIC;
REVOKE ALL ON DATABASE redflag FROM redflag_server;
GRANT CONNECT ON DATABASE redflag TO redflag_server;

\connect redflag
SET log_min_error_statement = 'panic';
ALTER SCHEMA public OWNER TO redflag_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
REVOKE CREATE ON SCHEMA public FROM redflag_server;
GRANT USAGE ON SCHEMA public TO redflag_server;

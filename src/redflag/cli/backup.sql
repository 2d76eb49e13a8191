-- name: applied
-- The migrations that this database has, for the manifest.
SELECT version, name, checksum FROM schema_migrations ORDER BY version;

-- name: schema
-- The schema that the tables stand in; nothing else is saved.
SELECT current_schema();

-- name: sessions
-- How many connections the server's role has to this database.
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = :role;

-- name: tables
-- How many tables there are, other than partitions.
SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition;

"""The database: the embedded PostgreSQL, connections, named queries and migrations."""

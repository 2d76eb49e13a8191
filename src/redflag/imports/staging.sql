-- name: create
-- Where rows wait until it is decided what becomes of each: `fate` is NULL for what is imported, else why not. Gone with the transaction.
CREATE TEMP TABLE staged_agents (id uuid, hostname text, os_type text, os_version text, os_architecture text, agent_version text,
  last_seen timestamp, created_at timestamp, metadata jsonb, fate text) ON COMMIT DROP;
CREATE TEMP TABLE staged_agent_tags (agent_id uuid, tag text, fate text) ON COMMIT DROP;
CREATE TEMP TABLE staged_refresh_tokens (id uuid, agent_id uuid, token_hash text, expires_at timestamp, created_at timestamp, revoked boolean,
  fate text) ON COMMIT DROP;
CREATE TEMP TABLE staged_registration_tokens (id uuid, token_hash bytea, label text, expires_at timestamp, created_at timestamp,
  revoked boolean, revoked_at timestamp, status text, created_by text, max_seats integer, seats_used integer, fate text) ON COMMIT DROP;
CREATE TEMP TABLE staged_registration_token_usage (id uuid, token_id uuid, agent_id uuid, used_at timestamp, fate text) ON COMMIT DROP;
CREATE TEMP TABLE staged_users (id uuid, username text, password_hash text, role text, created_at timestamp, last_login timestamp,
  fate text) ON COMMIT DROP;
CREATE TEMP TABLE staged_agent_commands (id uuid, agent_id uuid, command_type text, params jsonb, status text, created_at timestamp,
  sent_at timestamp, completed_at timestamp, result jsonb, retried_from_id uuid, source text, fate text,
  -- What it becomes, and what is known of its times here
  becomes text, began_at timestamptz, given_at timestamptz, ended_at timestamptz, detail jsonb, message text) ON COMMIT DROP;
CREATE TEMP TABLE staged_update_logs (id uuid, agent_id uuid, update_package_id uuid, action text, result text, stdout text, stderr text,
  exit_code integer, duration_seconds integer, executed_at timestamp, suspect boolean, fate text) ON COMMIT DROP;
CREATE TEMP TABLE staged_current_package_state (id uuid, agent_id uuid, package_type text, package_name text, current_version text,
  available_version text, severity text, repository_source text, metadata jsonb, last_discovered_at timestamptz,
  last_updated_at timestamptz, status text, fate text) ON COMMIT DROP;
CREATE TEMP TABLE staged_update_packages (id uuid, agent_id uuid, package_type text, package_name text, description text,
  current_version text, available_version text, severity text, cve_list text[], kb_id text, repository_source text, size_bytes bigint,
  status text, discovered_at timestamp, changed_at timestamp, error_message text, metadata jsonb, fate text) ON COMMIT DROP;
CREATE TEMP TABLE staged_update_version_history (id uuid, agent_id uuid, package_type text, package_name text, version_from text,
  version_to text, severity text, metadata jsonb, update_initiated_at timestamptz, update_completed_at timestamptz, update_status text,
  failure_reason text, fate text) ON COMMIT DROP;
CREATE TEMP TABLE staged_update_events (id uuid, agent_id uuid, package_type text, package_name text, version_from text, version_to text,
  severity text, event_type text, created_at timestamptz, fate text) ON COMMIT DROP;

-- name: columns_before_fate
-- The columns of a staging table that are read, in order.
SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
WHERE attrelid = to_regclass('pg_temp.' || :table) AND attnum > 0
  AND attnum < (SELECT attnum FROM pg_attribute WHERE attrelid = to_regclass('pg_temp.' || :table) AND attname = 'fate');

-- name: analyze
-- So that what follows is planned for what is there.
ANALYZE staged_agents, staged_agent_tags, staged_refresh_tokens, staged_registration_tokens, staged_registration_token_usage, staged_users,
  staged_agent_commands, staged_update_logs, staged_current_package_state, staged_update_packages, staged_update_version_history,
  staged_update_events;

-- name: begin
-- Says to the triggers that this transaction is an import, and from where; gives up no lock and no statement for want of time.
SELECT set_config('redflag.importing', 'on', true), set_config('redflag.imported_from', :imported_from, true),
  set_config('statement_timeout', '0', true), set_config('idle_in_transaction_session_timeout', '0', true),
  set_config('work_mem', '64MB', true);

-- name: may_import
-- Whether this role owns the tables, or is a member of who does, and is not the server's.
SELECT pg_has_role(session_user, relowner, 'MEMBER') AND session_user IS DISTINCT FROM redflag_server_role()
FROM pg_class WHERE oid = 'update_logs'::regclass;

-- name: zone_is_known
-- Whether this is a time zone.
SELECT EXISTS (SELECT FROM pg_timezone_names WHERE lower(name) = lower(:zone)) OR :zone ~ '^[+-]?\d{1,2}(:\d\d)?$';

-- name: lock
-- One import at a time.
SELECT pg_try_advisory_xact_lock(hashtextextended('redflag import ' || current_schema(), 0));

-- name: fates
-- What becomes of the rows of each table: NULL is imported.
SELECT 'agents' AS entity, fate, count(*) AS rows FROM staged_agents GROUP BY fate
UNION ALL SELECT 'agent_tags', fate, count(*) FROM staged_agent_tags GROUP BY fate
UNION ALL SELECT 'refresh_tokens', fate, count(*) FROM staged_refresh_tokens GROUP BY fate
UNION ALL SELECT 'registration_tokens', fate, count(*) FROM staged_registration_tokens GROUP BY fate
UNION ALL SELECT 'registration_token_usage', fate, count(*) FROM staged_registration_token_usage GROUP BY fate
UNION ALL SELECT 'users', fate, count(*) FROM staged_users GROUP BY fate
UNION ALL SELECT 'agent_commands', fate, count(*) FROM staged_agent_commands GROUP BY fate
UNION ALL SELECT 'update_logs', fate, count(*) FROM staged_update_logs GROUP BY fate
UNION ALL SELECT 'current_package_state', fate, count(*) FROM staged_current_package_state GROUP BY fate
UNION ALL SELECT 'update_packages', fate, count(*) FROM staged_update_packages GROUP BY fate
UNION ALL SELECT 'update_version_history', fate, count(*) FROM staged_update_version_history GROUP BY fate
UNION ALL SELECT 'update_events', fate, count(*) FROM staged_update_events GROUP BY fate;

-- name: record_import
-- The import itself, in one record.
INSERT INTO update_logs (action, result, message, metadata) VALUES ('import', 'success', :message, :metadata);

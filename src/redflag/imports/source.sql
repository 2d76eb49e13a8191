-- name: columns
-- The columns that a database has of the tables that are read, wherever its search_path finds them.
SELECT t.name AS table_name, a.attname::text AS column_name,
  CASE WHEN a.atttypid = 'varchar'::regtype THEN 'character varying' ELSE format_type(a.atttypid, NULL) END AS type
FROM unnest(:tables::text[]) AS t (name)
  JOIN pg_attribute a ON a.attrelid = to_regclass(t.name) AND a.attnum > 0 AND NOT a.attisdropped;

-- name: database
-- What it is called.
SELECT current_database();

-- name: count_agents
-- How many there are.
SELECT count(*) FROM agents;

-- name: count_agent_tags
-- How many there are.
SELECT count(*) FROM agent_tags;

-- name: count_refresh_tokens
-- How many there are.
SELECT count(*) FROM refresh_tokens;

-- name: count_registration_tokens
-- How many there are.
SELECT count(*) FROM registration_tokens;

-- name: count_registration_token_usage
-- How many there are.
SELECT count(*) FROM registration_token_usage;

-- name: count_users
-- How many there are.
SELECT count(*) FROM users;

-- name: count_agent_commands
-- How many there are.
SELECT count(*) FROM agent_commands;

-- name: count_update_logs
-- How many there are.
SELECT count(*) FROM update_logs;

-- name: count_current_package_state
-- How many there are.
SELECT count(*) FROM current_package_state;

-- name: count_update_packages
-- How many there are.
SELECT count(*) FROM update_packages;

-- name: count_update_version_history
-- How many there are.
SELECT count(*) FROM update_version_history;

-- name: count_update_events
-- How many there are.
SELECT count(*) FROM update_events;

-- name: read_agents
-- Every agent; what was added to RedFlag's table later goes where its other facts are.
SELECT id, hostname::text, os_type::text, os_version::text, os_architecture::text,
  coalesce(nullif(nullif(current_version, ''), '0.0.0'), agent_version)::text, last_seen, created_at,
  CASE WHEN jsonb_typeof(metadata) = 'object' THEN metadata ELSE '{}' END
    || jsonb_strip_nulls(jsonb_build_object('reboot_required', nullif(reboot_required, false), 'last_reboot_at', last_reboot_at,
      'reboot_reason', nullif(reboot_reason, '')))
FROM agents ORDER BY created_at, id;

-- name: read_agent_tags
-- Every tag.
SELECT agent_id, tag::text FROM agent_tags;

-- name: read_refresh_tokens
-- Every refresh token, as the hash that it is kept as.
SELECT id, agent_id, token_hash::text, expires_at, created_at, revoked FROM refresh_tokens;

-- name: read_registration_tokens
-- Every registration token. It stands there in the clear, and leaves that database as a hash only.
SELECT id, sha256(convert_to(token, 'UTF8')), label::text, expires_at, created_at, coalesce(revoked, false) OR status = 'revoked', revoked_at,
  coalesce(status, 'active')::text, created_by::text, max_seats, seats_used
FROM registration_tokens;

-- name: read_registration_token_usage
-- Which agent took a seat of which token.
SELECT id, token_id, agent_id, used_at FROM registration_token_usage;

-- name: read_users
-- Everybody who could log in.
SELECT id, username::text, password_hash::text, role::text, created_at, last_login FROM users;

-- name: read_agent_commands
-- Every command, in the order of their creation.
SELECT id, agent_id, command_type::text, params, coalesce(status, 'pending')::text, created_at, sent_at, completed_at, result, retried_from_id,
  source::text
FROM agent_commands ORDER BY created_at, id;

-- name: read_update_logs
-- The whole history in the order of time, which is the order that the indexes here grow in; and of each whether it may hold a
-- secret, or is longer than what is kept, and has to be looked at.
SELECT id, agent_id, update_package_id, action::text, result::text, stdout, stderr, exit_code, duration_seconds, executed_at,
  lower(concat_ws(' ', action, stdout, stderr) COLLATE "C") LIKE ANY (:suspicious::text[])
    OR greatest(octet_length(stdout), octet_length(stderr)) > :longest::bigint
FROM update_logs ORDER BY executed_at;

-- name: read_current_package_state
-- What was known of each package.
SELECT id, agent_id, package_type::text, package_name, current_version, available_version, severity::text, repository_source, metadata,
  last_discovered_at, last_updated_at, status::text
FROM current_package_state;

-- name: read_update_packages
-- The table that RedFlag used before current_package_state. What it alone knew of a decision goes into the metadata.
SELECT id, agent_id, package_type::text, package_name::text, package_description, current_version::text, available_version::text,
  severity::text, cve_list, kb_id::text, repository_source::text, size_bytes, coalesce(status, 'pending')::text, discovered_at,
  greatest(discovered_at, approved_at, installed_at), error_message,
  CASE WHEN jsonb_typeof(metadata) = 'object' THEN metadata ELSE '{}' END
    || jsonb_strip_nulls(jsonb_build_object('approved_by', approved_by, 'approved_at', approved_at, 'scheduled_for', scheduled_for))
FROM update_packages;

-- name: read_update_version_history
-- What was installed, or failed to be.
SELECT id, agent_id, package_type::text, package_name, version_from, version_to, severity::text, metadata, update_initiated_at,
  update_completed_at, update_status::text, failure_reason
FROM update_version_history;

-- name: read_update_events
-- What scans and installations said of versions.
SELECT id, agent_id, package_type::text, package_name, version_from, version_to, severity::text, event_type::text, created_at
FROM update_events;

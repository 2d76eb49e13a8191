-- Rows for a database of RedFlag's shape: every status and word there is, and what is odd. The web host is 1, 2 has no name, 9 is not there.
INSERT INTO agents (id, hostname, os_type, agent_version, last_seen, created_at, metadata, current_version, reboot_required) VALUES
  ('00000000-0000-0000-0000-000000000001', 'web1', 'linux', '0.1.16', now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC' - interval '9 days', '{"password": "hunter2-and-more"}', '0.1.18', true),
  ('00000000-0000-0000-0000-000000000002', '', 'windows', '0.1.16', now() AT TIME ZONE 'UTC', now(), NULL, '0.0.0', false);
INSERT INTO agent_tags VALUES ('00000000-0000-0000-0000-000000000001', 'web'), ('00000000-0000-0000-0000-000000000001', 'berlin'), ('00000000-0000-0000-0000-000000000009', 'gone');
INSERT INTO refresh_tokens (id, agent_id, token_hash, expires_at, created_at, revoked) VALUES
  (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', repeat('0a', 32), now() + interval '9 days', now(), true),
  (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', repeat('0b', 32), now() - interval '9 days', now(), false),
  (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'no hash', now() + interval '9 days', now(), false),
  (gen_random_uuid(), '00000000-0000-0000-0000-000000000009', repeat('0c', 32), now() + interval '9 days', now(), false);
INSERT INTO registration_tokens (id, token, label, expires_at, created_at, revoked, status, created_by, max_seats, seats_used) VALUES
  (gen_random_uuid(), 'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd', NULL, now() + interval '9 days', now(), false, 'active', 'admin', 3, 1),
  (gen_random_uuid(), 'eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', 'revoked', now() + interval '9 days', now(), true, 'revoked', 'admin', 3, 1),
  (gen_random_uuid(), 'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff', 'used', now() + interval '9 days', now(), false, 'used', NULL, 3, 1),
  (gen_random_uuid(), 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'over', now() + interval '9 days', now(), false, 'expired', NULL, 3, 1);
INSERT INTO users (id, username, password_hash, role, created_at) VALUES
  (gen_random_uuid(), 'Ada', '$2a$10$' || repeat('a', 53), 'user', now()),
  (gen_random_uuid(), 'ada', '$2a$10$' || repeat('a', 53), 'admin', now() + interval '1 s'),
  (gen_random_uuid(), 'reader', '$2y$10$' || repeat('a', 53), 'readonly', now()),
  (gen_random_uuid(), 'taken', '$2a$10$' || repeat('a', 53), 'admin', now()),
  (gen_random_uuid(), 'no hash', 'x', 'admin', now()),
  (gen_random_uuid(), 'plain', 'in clear', 'admin', now());
INSERT INTO agent_commands (id, agent_id, command_type, params, status, created_at, sent_at, completed_at, result, source)
SELECT ('00000000-0000-0000-0000-0000000001' || lpad(n::text, 2, '0'))::uuid, agent::uuid, 'reboot', params::jsonb, status,
  now() AT TIME ZONE 'UTC' + made::interval, now() AT TIME ZONE 'UTC' + sent::interval, now() AT TIME ZONE 'UTC' + ended::interval, result::jsonb, 'manual'
FROM (VALUES
  (1, '00000000-0000-0000-0000-000000000001', 'archived_failed', '-1 day', '-1 day', NULL, '{"stderr": "no", "exit_code": 3, "token": "hunter2-and-more"}', '{}'),
  (2, '00000000-0000-0000-0000-000000000001', 'completed', '-1 day', '-1 day', '-23 hours', '{"stdout": "password=hunter2-and-more", "exit_code": 0, "duration_seconds": 4}', '{"api_key": "hunter2-and-more"}'),
  (3, '00000000-0000-0000-0000-000000000001', 'pending', '-1 minute', NULL, NULL, NULL, '{"delay_minutes": 1}'),
  (4, '00000000-0000-0000-0000-000000000001', 'sent', '-1 hour', '-1 hour', NULL, NULL, NULL),
  (5, '00000000-0000-0000-0000-000000000001', 'running', '-1 hour', '-1 hour', NULL, NULL, '[1]'),
  (6, '00000000-0000-0000-0000-000000000001', 'sent', '-3 hours', '-3 hours', NULL, NULL, '{}'),
  (7, '00000000-0000-0000-0000-000000000001', 'cancelled', '-1 day', NULL, NULL, '"never mind"', '{}'),
  (8, '00000000-0000-0000-0000-000000000001', 'timed_out', '-1 day', '-1 day', NULL, '{"timeout_at": "yesterday?", "duration": "two hours"}', '{}'),
  (9, '00000000-0000-0000-0000-000000000001', 'paused', '-1 day', NULL, NULL, NULL, '{}'),
  (10, '00000000-0000-0000-0000-000000000009', 'pending', '-1 minute', NULL, NULL, NULL, '{}'),
  (11, NULL, 'pending', '-1 minute', NULL, NULL, NULL, '{}'),
  (12, '00000000-0000-0000-0000-000000000002', 'timed_out', '-1 day', '-1 day', '-22 hours', NULL, '{}')
) AS v (n, agent, status, made, sent, ended, result, params);
INSERT INTO update_logs (id, agent_id, action, result, stdout, stderr, exit_code, duration_seconds, executed_at) VALUES
  (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'install', 'success', 'export API_KEY=hunter2-and-more', '', 0, 1, now()),
  (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'install', 'failure', 'nothing', 'to hide', 1, -1, NULL),
  (gen_random_uuid(), NULL, 'install', 'strange', repeat('x', 5000), NULL, NULL, NULL, now()),
  (gen_random_uuid(), '00000000-0000-0000-0000-000000000002', 'reboot', 'timed_out', '', 'Command reboot timed out after 2h0m0s', 124, 7200, now() AT TIME ZONE 'UTC' - interval '22 hours');
INSERT INTO current_package_state (id, agent_id, package_type, package_name, current_version, available_version, severity, status, metadata)
SELECT gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'apt', status, '1', '2', severity, status, metadata::jsonb
FROM (VALUES ('pending', 'Critical', NULL), ('approved', 'none', '{}'), ('updated', 'low', '{}'), ('failed', 'low', '{}'), ('ignored', 'low', '[]'),
  ('installing', 'low', '{}'), ('checking_dependencies', 'low', '{}'), ('pending_dependencies', 'low', '{"dependencies": []}'),
  ('undreamt', 'low', '{}')) AS v (status, severity, metadata);
INSERT INTO current_package_state (id, agent_id, package_type, package_name, current_version, severity, status) VALUES
  (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'apt', repeat('n', 501), '1', 'low', 'pending');
INSERT INTO agent_commands (id, agent_id, command_type, params, status, created_at, sent_at, source)
  SELECT gen_random_uuid(), agent_id, 'confirm_dependencies', jsonb_build_object('update_id', id), 'sent', now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC', 'manual'
  FROM current_package_state WHERE package_name = 'installing';
INSERT INTO update_packages (id, agent_id, package_type, package_name, available_version, status, discovered_at, cve_list) VALUES
  (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'dnf', 'old', '1', 'installed', now() - interval '2 days', NULL),
  (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'dnf', 'old', '2', 'scheduled', now() - interval '1 day', '{CVE-1,NULL}'),
  (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'apt', 'pending', '2', 'approved', now(), NULL),
  (gen_random_uuid(), NULL, 'apt', 'orphan', '2', 'approved', now(), NULL);
INSERT INTO update_version_history (id, agent_id, package_type, package_name, version_from, version_to, severity, update_status) VALUES
  (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'apt', 'p', '1', '2', 'low', 'success'), (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'apt', 'p', '2', '1', 'low', 'rollback'),
  (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'apt', 'p', '2', '1', 'low', 'sideways');
INSERT INTO update_events (id, agent_id, package_type, package_name, version_to, severity, event_type) VALUES
  (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'apt', 'p', '2', 'low', 'discovered'), (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'apt', 'p', '2', 'low', 'ignored');

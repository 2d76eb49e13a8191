-- name: suspects_agent_commands
-- Commands that may hold a secret, or more output than is kept.
SELECT id, told FROM (SELECT id, jsonb_build_object('params', params, 'result', result) AS told FROM staged_agent_commands) AS one
WHERE lower(told::text COLLATE "C") LIKE ANY (:suspicious) OR octet_length(told::text) > :longest;

-- name: clean_agent_commands
-- Without the secrets.
UPDATE staged_agent_commands s SET params = c.told -> 'params', result = c.told -> 'result'
FROM unnest(:ids::uuid[], :told::jsonb[]) AS c (id, told) WHERE s.id = c.id;

-- name: judge_agent_commands
-- What each command becomes here. One that is live and past its policy has timed out, whatever RedFlag would have done with it; what
-- RedFlag timed out keeps the time that RedFlag gives. The detail is what its record says beside its columns.
WITH read AS (
  SELECT s.id, s.status, w.ours, p.delivery_timeout, p.execution_timeout, p.idle_timeout,
    coalesce(s.created_at, s.sent_at, s.completed_at) AT TIME ZONE :zone AS began,
    CASE WHEN w.ours IN ('sent', 'running') THEN coalesce(s.sent_at, s.created_at) ELSE s.sent_at END AT TIME ZONE :zone AS given,
    s.completed_at AT TIME ZONE :zone AS completed,
    CASE WHEN jsonb_typeof(s.result) = 'object' THEN s.result ELSE '{}' END AS told,
    CASE WHEN jsonb_typeof(s.result) = 'object' THEN nullif(s.result - '{stdout,stderr,exit_code,duration_seconds}'::text[], '{}') ELSE s.result END AS rest,
    CASE WHEN jsonb_typeof(s.params) <> 'object' THEN s.params END AS odd_params,
    CASE
      WHEN EXISTS (SELECT FROM agent_commands c WHERE c.id = s.id) THEN 'already there'
      WHEN s.agent_id IS NULL OR NOT EXISTS (SELECT FROM agents a WHERE a.id = s.agent_id) THEN 'its agent is not there'
      WHEN w.ours IS NULL THEN 'its status is unknown here: ' || s.status
      WHEN s.command_type = '' THEN 'it has no type' END AS fate
  FROM staged_agent_commands s
    LEFT JOIN unnest(:their_statuses::text[], :our_statuses::text[]) AS w (theirs, ours) ON w.theirs = s.status
    CROSS JOIN LATERAL (SELECT * FROM timeout_policies p WHERE p.command_type IN (s.command_type, '*') ORDER BY p.command_type = '*' LIMIT 1) p
), timed AS (
  SELECT r.*,
    CASE WHEN pg_input_is_valid(told ->> 'timeout_at', 'timestamptz') THEN (told ->> 'timeout_at')::timestamptz END AS timeout_at,
    CASE WHEN pg_input_is_valid(told ->> 'duration', 'interval') THEN (told ->> 'duration')::interval END AS duration,
    CASE ours WHEN 'pending' THEN 'delivery' WHEN 'sent' THEN 'execution'
      WHEN 'running' THEN CASE WHEN idle_timeout < execution_timeout THEN 'idle' ELSE 'execution' END END AS due_by,
    CASE ours WHEN 'pending' THEN began + delivery_timeout WHEN 'sent' THEN given + execution_timeout
      WHEN 'running' THEN given + least(execution_timeout, idle_timeout) END AS due
  FROM read r
), judged AS (
  SELECT t.*, coalesce(due <= now(), false) AS expired,
    CASE WHEN ours = 'timed_out' THEN coalesce(timeout_at, completed, given + duration, given, began, now())
         WHEN due <= now() THEN now()
         WHEN ours IN ('completed', 'failed', 'cancelled') THEN coalesce(completed, given, began, now()) END AS ended
  FROM timed t
)
UPDATE staged_agent_commands s SET fate = j.fate, becomes = CASE WHEN j.expired THEN 'timed_out' ELSE j.ours END,
  began_at = coalesce(j.began, now()), given_at = j.given, ended_at = j.ended,
  message = CASE WHEN j.expired THEN 'expired before import'
                 WHEN j.ours = 'timed_out' THEN 'timed out in RedFlag' || coalesce(' after ' || spell_interval(j.ended - coalesce(j.given, j.began)), '') END,
  detail = jsonb_build_object('imported', jsonb_strip_nulls(jsonb_build_object('status', j.status, 'result', j.rest, 'params', j.odd_params,
      'completed_at', CASE WHEN j.ours IN ('completed', 'failed', 'cancelled') AND j.completed IS NULL THEN 'unknown' END)))
    || CASE
      WHEN j.expired THEN jsonb_build_object('timeout_reason', 'expired before import', 'timeout_duration', spell_interval(
          CASE j.due_by WHEN 'delivery' THEN j.delivery_timeout WHEN 'idle' THEN j.idle_timeout ELSE j.execution_timeout END),
        'deadline_kind', j.due_by, 'deadline_at', j.due, 'sent_at', j.given, 'detected_by', 'import', 'detection_method', 'import',
        'service_version', :version::text, 'stuck_seconds', round(extract(epoch FROM now() - coalesce(j.given, j.began)), 3),
        'lateness_ms', round(extract(epoch FROM now() - j.due) * 1000))
      WHEN j.ours = 'timed_out' THEN jsonb_strip_nulls(jsonb_build_object('timeout_reason', CASE WHEN j.given IS NULL THEN 'not_delivered' ELSE 'no_response' END,
        'timeout_duration', j.told ->> 'duration', 'deadline_kind', CASE WHEN j.given IS NULL THEN 'delivery' ELSE 'execution' END,
        'deadline_at', coalesce(j.given, j.began) + j.duration, 'sent_at', j.given, 'detected_by', 'RedFlag', 'detection_method', 'import',
        'service_version', :redflag_version::text, 'stuck_seconds', round(extract(epoch FROM j.ended - coalesce(j.given, j.began)), 3),
        'lateness_ms', greatest(0, round(extract(epoch FROM j.ended - (coalesce(j.given, j.began) + j.duration)) * 1000))))
      ELSE '{}' END
FROM judged j WHERE j.id = s.id;

-- name: insert_agent_commands
-- As they are, or as what became of them; the trigger writes the record of each, its version 1.
INSERT INTO agent_commands (id, agent_id, command_type, params, status, source, created_at, sent_at, completed_at, result, retried_from_id,
  deliveries, act)
SELECT s.id, s.agent_id, s.command_type, CASE WHEN jsonb_typeof(s.params) = 'object' THEN s.params ELSE '{}' END, s.becomes,
  coalesce(nullif(s.source, ''), 'manual'), s.began_at, s.given_at, s.ended_at,
  CASE WHEN s.becomes IN ('completed', 'failed', 'cancelled') THEN jsonb_strip_nulls(jsonb_build_object(
    'outcome', CASE s.becomes WHEN 'completed' THEN CASE WHEN r.told ->> 'result' = 'partial' THEN 'partial' ELSE 'success' END WHEN 'failed' THEN 'failed' END,
    'action', r.told ->> 'action', 'stdout', r.told ->> 'stdout', 'stderr', r.told ->> 'stderr',
    'exit_code', CASE WHEN r.told ->> 'exit_code' ~ '^-?\d{1,9}$' THEN (r.told ->> 'exit_code')::integer END,
    'duration_seconds', CASE WHEN r.told ->> 'duration_seconds' ~ '^\d{1,9}$' THEN (r.told ->> 'duration_seconds')::integer END,
    'message', left(coalesce(r.told ->> 'error', r.told ->> 'message'), 2000)))
  WHEN s.becomes = 'timed_out' THEN jsonb_strip_nulls(jsonb_build_object('message', s.message)) END,
  s.retried_from_id, CASE WHEN s.given_at IS NULL THEN 0 ELSE 1 END,
  s.detail || jsonb_strip_nulls(jsonb_build_object('message', s.message))
FROM staged_agent_commands s
  CROSS JOIN LATERAL (SELECT CASE WHEN jsonb_typeof(s.result) = 'object' THEN s.result ELSE '{}' END AS told) r
WHERE s.fate IS NULL ORDER BY s.began_at, s.id;

-- name: reconstruct_timeouts
-- What RedFlag timed out and could not record gets its record: when it happened there, and marked as reconstructed. RedFlag's own
-- record of a timeout names no command; it is the one of that agent and type around that time.
INSERT INTO update_logs (executed_at, command_id, agent_id, command_type, result, message, metadata, sent_at, completed_at)
SELECT s.ended_at, s.id, s.agent_id, s.command_type, 'timed_out', s.message, s.detail || '{"reconstructed": true}', s.given_at, s.ended_at
FROM staged_agent_commands s
WHERE s.fate IS NULL AND s.status = 'timed_out' AND NOT EXISTS (
  SELECT FROM staged_update_logs l
  WHERE l.agent_id = s.agent_id AND l.action = s.command_type AND l.result = 'timed_out'
    AND abs(extract(epoch FROM l.executed_at AT TIME ZONE :zone - s.ended_at)) < 300)
ORDER BY s.ended_at, s.id;

-- name: count_expired
-- How many were live in RedFlag, and past their policy here.
SELECT count(*) FROM staged_agent_commands WHERE fate IS NULL AND becomes = 'timed_out' AND status IN ('pending', 'sent', 'running');

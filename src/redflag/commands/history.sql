-- name: page
-- A page of the record, the newest first, from a position on. Every filter is optional; the plan is made for the ones that are given.
SELECT id, kind, command_id, agent_id, version, command_type, action, actor, result, message, metadata, params, sent_at, completed_at,
  stdout, stderr, exit_code, duration_seconds, executed_at, created_at
FROM update_logs
WHERE (:agent_id::uuid IS NULL OR agent_id = :agent_id)
  AND (:command_id::uuid IS NULL OR command_id = :command_id)
  AND (:command_type::text IS NULL OR command_type = :command_type)
  AND (:result::text IS NULL OR result = :result)
  -- Said a second time as the index of actors has it: PostgreSQL does not see that the one implies the other
  AND (:actor::text IS NULL OR (actor = :actor AND (actor NOT LIKE 'agent:%' OR :actor LIKE 'agent:%')))
  AND (NOT :people::boolean OR (actor LIKE 'user:%' AND actor NOT LIKE 'agent:%'))
  AND (:kind::text IS NULL OR kind = :kind)
  AND (:action::text IS NULL OR action = :action)
  AND (:since::timestamptz IS NULL OR executed_at >= :since)
  AND (:until::timestamptz IS NULL OR executed_at < :until)
  AND (:include_timeout::boolean OR result <> 'timed_out')
  AND (NOT :commands_only::boolean OR command_id IS NOT NULL)
  AND (:text::text IS NULL OR message ILIKE :text OR stdout ILIKE :text OR stderr ILIKE :text OR action ILIKE :text OR actor ILIKE :text)
  AND (:before_at::timestamptz IS NULL OR (executed_at, id) < (:before_at, :before_id::uuid))
ORDER BY executed_at DESC, id DESC LIMIT :limit;

-- name: plan_for_these_values
-- A plan for all filters at once would read the whole table; in this transaction every plan is made for its values, and none runs
-- for longer than people wait.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('statement_timeout', :longest_ms::text, true);

-- name: events_of_command
-- All that is recorded of one command, in order; where each record stands in the log, and what was erased of it.
SELECT id, kind, command_id, agent_id, version, command_type, action, actor, result, message, metadata, params, sent_at, completed_at,
  stdout, stderr, exit_code, duration_seconds, executed_at, created_at,
  (SELECT position FROM audit_entries e WHERE e.record_id = u.id) AS position,
  (SELECT array_agg(DISTINCT field) FROM audit_erasures e, unnest(e.fields) AS field WHERE e.record_id = u.id) AS erased
FROM update_logs u WHERE command_id = :command_id
ORDER BY executed_at, version NULLS LAST, id LIMIT 1000;

-- name: totals
-- Records by kind and result.
SELECT kind, result, count(*) AS records FROM update_logs GROUP BY kind, result;

-- name: make_partitions
-- Makes the partitions of the next twelve months, as far as they are missing; tells how many months lie ahead.
SELECT update_logs_make_partitions(12);

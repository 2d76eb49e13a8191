-- name: report
-- What agents report ends their commands, if they are live; comes late, if they have ended; or is known already: for each of
-- the reports that arrived together. The rows of the commands are locked first, in the order of their ids, so that of two equal
-- reports at once one is recorded. What is decided is decided by the locked row: this statement's own view of the table may be
-- older than the end that it waited for.
WITH told AS (
  SELECT * FROM unnest(:commands::uuid[], :agents::uuid[], :statuses::text[], :results::text[], :reports::jsonb[], :digests::text[], :acts::jsonb[])
    AS told (command_id, agent_id, new_status, new_result, report, new_digest, act)
), target AS MATERIALIZED (
  SELECT c.id, c.agent_id, c.status, c.command_type, c.params, c.sent_at, c.result ->> 'digest' AS digest, c.late_reports, c.completed_at,
    told.new_status, told.new_result, told.report, told.new_digest, told.act
  FROM told JOIN agent_commands c ON c.id = told.command_id AND c.agent_id = told.agent_id
  ORDER BY c.id FOR UPDATE OF c
), ended AS (
  UPDATE agent_commands c SET status = target.new_status, completed_at = clock_timestamp(), result = target.report, act = target.act
  FROM target WHERE c.id = target.id AND target.status = ANY ('{pending,sent,running}') AND target.sent_at IS NOT NULL
  RETURNING c.id
), late AS (
  UPDATE agent_commands c SET late_reports = array_append(c.late_reports, target.new_digest)
  FROM target WHERE c.id = target.id AND target.status = ANY ('{completed,failed,timed_out,cancelled}')
    AND target.digest IS DISTINCT FROM target.new_digest AND NOT target.new_digest = ANY (target.late_reports)
    AND cardinality(target.late_reports) < 20
  RETURNING c.id, clock_timestamp() - c.completed_at AS late_by
), noted AS (
  INSERT INTO update_logs (kind, command_id, agent_id, command_type, action, actor, result, message, metadata, stdout, stderr, exit_code, duration_seconds)
  SELECT 'late_result', target.id, target.agent_id, target.command_type, report ->> 'action', act ->> 'actor', new_result,
    status || '; the agent reported ' || new_result || ' ' || spell_interval(late_by) || ' later',
    coalesce(report -> 'metadata', '{}') || (act - 'actor') || jsonb_build_object('status', status, 'late_by_seconds',
      round(extract(epoch FROM late_by), 3)),
    report ->> 'stdout', report ->> 'stderr', (report ->> 'exit_code')::integer, (report ->> 'duration_seconds')::integer
  FROM late JOIN target USING (id)
)
SELECT target.id, target.command_type, target.params, CASE WHEN ended.id IS NULL THEN target.status ELSE target.new_status END AS status,
  target.sent_at IS NOT NULL AS was_sent, ended.id IS NOT NULL AS ended, late.id IS NOT NULL AS late,
  target.digest IS NOT DISTINCT FROM target.new_digest OR target.new_digest = ANY (target.late_reports) AS known
FROM target LEFT JOIN ended USING (id) LEFT JOIN late USING (id);

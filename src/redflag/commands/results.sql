-- name: report
-- What an agent reports ends its command, if it is live; comes late, if it has ended; or is known already. The command's row
-- is locked first, so that of two equal reports at once one is recorded. What is decided is decided by the locked row: this
-- statement's own view of the table may be older than the end that it waited for.
WITH target AS (
  SELECT id, status, version, command_type, params, sent_at, result ->> 'digest' AS digest, late_reports, completed_at
  FROM agent_commands WHERE id = :command_id AND agent_id = :agent_id
  FOR UPDATE
), ended AS (
  UPDATE agent_commands c SET status = :status, completed_at = clock_timestamp(), result = :report, act = :act
  FROM target WHERE c.id = target.id AND target.status = ANY ('{pending,sent,running}') AND target.sent_at IS NOT NULL
  RETURNING c.id
), late AS (
  UPDATE agent_commands c SET late_reports = array_append(c.late_reports, :digest::text)
  FROM target WHERE c.id = target.id AND target.status = ANY ('{completed,failed,timed_out,cancelled}')
    AND target.digest IS DISTINCT FROM :digest::text AND NOT :digest = ANY (target.late_reports) AND cardinality(target.late_reports) < 20
  RETURNING c.id, c.status, c.command_type, c.version, c.completed_at
), noted AS (
  INSERT INTO update_logs (kind, command_id, agent_id, command_type, action, actor, result, message, metadata, stdout, stderr, exit_code, duration_seconds)
  SELECT 'late_result', late.id, :agent_id, late.command_type, :report ->> 'action', :act ->> 'actor', :result::text,
    late.status || '; the agent reported ' || :result || ' ' || spell_interval(clock_timestamp() - late.completed_at) || ' later',
    coalesce(:report -> 'metadata', '{}') || (:act - 'actor') || jsonb_build_object('status', late.status, 'late_by_seconds',
      round(extract(epoch FROM clock_timestamp() - late.completed_at), 3)),
    :report ->> 'stdout', :report ->> 'stderr', (:report ->> 'exit_code')::integer, (:report ->> 'duration_seconds')::integer
  FROM late
)
SELECT target.id, target.command_type, target.params, coalesce((SELECT :status::text FROM ended), target.status) AS status, target.sent_at IS NOT NULL AS was_sent,
  EXISTS (SELECT FROM ended) AS ended, EXISTS (SELECT FROM late) AS late,
  target.digest IS NOT DISTINCT FROM :digest OR :digest = ANY (target.late_reports) AS known
FROM target;

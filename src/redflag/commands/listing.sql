-- name: live
-- Live commands, the newest first, from a position on. For when they are few: all of them are looked at, up to so many.
WITH live AS MATERIALIZED (
  SELECT id, created_at, status, command_type FROM agent_commands WHERE next_deadline_at IS NOT NULL ORDER BY next_deadline_at LIMIT :most
)
SELECT id, created_at FROM live
WHERE (:status::text IS NULL OR status = :status) AND (:command_type::text IS NULL OR command_type = :command_type)
  AND (created_at, id) < (coalesce(:before_at::timestamptz, 'infinity'), coalesce(:before_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: live_of_agent
-- The same of one agent.
WITH live AS MATERIALIZED (
  SELECT id, created_at, status, command_type FROM agent_commands WHERE agent_id = :agent_id AND next_deadline_at IS NOT NULL
  ORDER BY created_at DESC, id DESC LIMIT :most
)
SELECT id, created_at FROM live
WHERE (:status::text IS NULL OR status = :status) AND (:command_type::text IS NULL OR command_type = :command_type)
  AND (created_at, id) < (coalesce(:before_at::timestamptz, 'infinity'), coalesce(:before_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: among_newest
-- Commands that are live, or that have ended, among the newest before a position: no more than so many are looked at. The filters
-- stand outside of that, so that they cost the same whichever are given.
SELECT id, created_at FROM (
  SELECT id, created_at, status, command_type, next_deadline_at FROM agent_commands
  WHERE (created_at, id) < (coalesce(:before_at::timestamptz, 'infinity'), coalesce(:before_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
  ORDER BY created_at DESC, id DESC LIMIT :most
) AS looked_at
WHERE (next_deadline_at IS NOT NULL) = :live::boolean
  AND (:status::text IS NULL OR status = :status) AND (:command_type::text IS NULL OR command_type = :command_type)
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: among_newest_of_agent
-- The same of one agent.
SELECT id, created_at FROM (
  SELECT id, created_at, status, command_type, next_deadline_at FROM agent_commands
  WHERE agent_id = :agent_id
    AND (created_at, id) < (coalesce(:before_at::timestamptz, 'infinity'), coalesce(:before_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
  ORDER BY created_at DESC, id DESC LIMIT :most
) AS looked_at
WHERE (next_deadline_at IS NOT NULL) = :live::boolean
  AND (:status::text IS NULL OR status = :status) AND (:command_type::text IS NULL OR command_type = :command_type)
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: looked_until
-- The last command that such a look comes to; none if there are not so many.
SELECT id, created_at FROM agent_commands
WHERE (created_at, id) < (coalesce(:before_at::timestamptz, 'infinity'), coalesce(:before_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
ORDER BY created_at DESC, id DESC OFFSET :most - 1 LIMIT 1;

-- name: looked_until_of_agent
-- The same of one agent.
SELECT id, created_at FROM agent_commands
WHERE agent_id = :agent_id
  AND (created_at, id) < (coalesce(:before_at::timestamptz, 'infinity'), coalesce(:before_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
ORDER BY created_at DESC, id DESC OFFSET :most - 1 LIMIT 1;

-- name: described
-- Some commands as they are now, in the order in which they are named: with their agents, what stands before them in the agent's
-- queue, what the agent is busy with, and who enqueued them, if that may be seen.
SELECT c.id, c.agent_id, coalesce(a.name, a.hostname) AS agent_name, c.command_type, c.params, c.status, c.source, c.created_at, c.sent_at,
  c.acknowledged_at, c.completed_at, c.version, c.next_deadline_at, c.deadline_kind, c.deliveries, c.acknowledges, c.progress,
  c.last_progress_at, c.retried_from_id, cardinality(c.late_reports) AS late_reports, c.delivery_timeout, c.start_timeout, c.execution_timeout, c.idle_timeout,
  a.protocol, a.removed_at IS NOT NULL AS removed, redflag_agents_report_on(c.command_type) AS reported_on,
  extract(epoch FROM c.next_deadline_at - now())::double precision AS remaining_seconds,
  extract(epoch FROM now() - c.sent_at)::double precision AS sent_seconds,
  extract(epoch FROM now() - c.acknowledged_at)::double precision AS acknowledged_seconds,
  extract(epoch FROM now() - c.last_progress_at)::double precision AS progress_seconds,
  extract(epoch FROM now() - p.last_seen)::double precision AS seen_seconds,
  CASE c.deadline_kind WHEN 'delivery' THEN c.created_at WHEN 'start' THEN c.next_deadline_at - c.start_timeout
    WHEN 'idle' THEN c.next_deadline_at - c.idle_timeout WHEN 'execution' THEN c.next_deadline_at - c.execution_timeout END AS deadline_since,
  coalesce(ahead.commands, 0)::integer AS ahead, busy.id AS busy_id, busy.command_type AS busy_type, busy.status AS busy_status,
  -- Only the first change is told by the row itself; any other by its record, which is written with the row
  CASE WHEN NOT :who::boolean THEN NULL WHEN c.version = 1 THEN c.act ->> 'actor' ELSE (
    SELECT u.actor FROM update_logs u
    WHERE u.command_id = c.id AND u.version = 1 AND u.created_at BETWEEN c.created_at - interval '1 minute' AND c.created_at + interval '1 day'
    ORDER BY u.executed_at LIMIT 1) END AS enqueued_by,
  c.params = '{}' AND EXISTS (SELECT FROM audit_erasures e WHERE e.command_id = c.id AND 'params' = ANY (e.fields)) AS params_erased
FROM unnest(:ids::uuid[]) WITH ORDINALITY AS asked (id, place)
JOIN agent_commands c ON c.id = asked.id
JOIN agents a ON a.id = c.agent_id
LEFT JOIN agent_presence p ON p.agent_id = c.agent_id
LEFT JOIN LATERAL (
  SELECT count(*) AS commands FROM (
    SELECT FROM agent_commands o
    WHERE o.agent_id = c.agent_id AND o.next_deadline_at IS NOT NULL AND o.status = 'pending' AND (o.created_at, o.id) < (c.created_at, c.id)
    LIMIT :most_ahead
  ) AS before
) AS ahead ON c.status = 'pending'
LEFT JOIN LATERAL (
  SELECT o.id, o.command_type, o.status FROM (
    SELECT id, command_type, status FROM agent_commands
    WHERE agent_id = c.agent_id AND next_deadline_at IS NOT NULL ORDER BY created_at, id LIMIT 1000
  ) AS o
  WHERE o.id <> c.id AND o.status = ANY ('{sent,running}')
  ORDER BY o.status = 'running' DESC LIMIT 1
) AS busy ON c.status = ANY ('{pending,sent}')
ORDER BY asked.place;

-- name: chain
-- Of which command this is a retry, and that one, and so on; and which are retries of it. A retry is of the same agent and comes after.
WITH RECURSIVE back AS (
  SELECT id, retried_from_id, 0 AS step FROM agent_commands WHERE id = :id
  UNION ALL
  SELECT c.id, c.retried_from_id, back.step - 1 FROM back JOIN agent_commands c ON c.id = back.retried_from_id WHERE back.step > -20
), forth AS (
  SELECT o.id, 1 AS step FROM agent_commands c CROSS JOIN LATERAL (
    SELECT id, retried_from_id FROM agent_commands
    WHERE agent_id = c.agent_id AND created_at >= c.created_at ORDER BY created_at, id LIMIT :most
  ) AS o
  WHERE c.id = :id AND o.retried_from_id = c.id
)
SELECT c.id, c.status, c.created_at, c.completed_at, step FROM (SELECT id, step FROM back UNION ALL SELECT id, step FROM forth) AS found
JOIN agent_commands c USING (id)
ORDER BY step, c.created_at;

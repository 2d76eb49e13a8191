-- name: enqueue
-- One command for each of the agents that are there; agents that are not, or were removed, are left out.
INSERT INTO agent_commands (agent_id, command_type, params, source, retried_from_id, delivery_timeout, execution_timeout, act)
SELECT a.id, :command_type, :params, :source, :retried_from_id, :delivery_timeout::interval, :execution_timeout::interval, :act
FROM agents a WHERE a.id = ANY (:agents::uuid[]) AND a.removed_at IS NULL
ORDER BY a.id
RETURNING id, agent_id, command_type, params, status, source, created_at, version, next_deadline_at, deadline_kind, retried_from_id;

-- name: deliver
-- Hands out what is pending to the agents that ask, oldest first, ten each; and once more what was sent to an agent that
-- names what it holds and does not name this. Never what is past its deadline, even if no sweep has come by yet.
-- The planner does not see how many ask, and so keeps one plan: to plan anew for a single agent costs as much as its delivery.
WITH asking AS (
  SELECT * FROM unnest((SELECT :agents::uuid[]), (SELECT :protocols::integer[]), (SELECT :acts::jsonb[])) AS asking (agent_id, protocol, act)
), picked AS MATERIALIZED (
  SELECT c.id, a.protocol, a.act
  FROM asking a CROSS JOIN LATERAL (
    SELECT id FROM agent_commands
    WHERE agent_id = a.agent_id AND next_deadline_at > now()
      AND (status = 'pending' OR (status = 'sent' AND a.protocol > 0 AND deadline_kind = 'start'))
      AND NOT id = ANY ((SELECT :held::uuid[])::uuid[])
    ORDER BY created_at, id LIMIT 10
    FOR UPDATE SKIP LOCKED
  ) c
)
UPDATE agent_commands c
SET status = 'sent', sent_at = now(), deliveries = c.deliveries + 1, acknowledges = picked.protocol > 0, acknowledged_at = NULL, act = picked.act
FROM picked
WHERE c.id = picked.id AND c.status = ANY ('{pending,sent}')
RETURNING c.id, c.agent_id, c.command_type, c.params, c.created_at, c.version,
  extract(epoch FROM c.sent_at + c.execution_timeout - clock_timestamp())::double precision AS remaining_seconds;

-- name: received
-- What agents that come by say they hold. Tells which of it is live; only what was not acknowledged before is written.
WITH named AS MATERIALIZED (
  SELECT c.id, c.status = 'sent' AND c.acknowledged_at IS NULL AS fresh
  FROM unnest(:agents::uuid[], :commands::uuid[]) AS held (agent_id, id) JOIN agent_commands c USING (agent_id, id)
  WHERE c.next_deadline_at > now() AND c.sent_at IS NOT NULL
), locked AS MATERIALIZED (
  SELECT id FROM agent_commands WHERE id IN (SELECT id FROM named WHERE fresh) ORDER BY id FOR UPDATE
), noted AS (
  UPDATE agent_commands c SET acknowledged_at = now()
  FROM locked WHERE c.id = locked.id AND c.status = 'sent' AND c.acknowledged_at IS NULL
)
SELECT id FROM named;

-- name: acknowledge
-- What an agent says it holds: received, running, or still running. Tells which of them are live, and for how long.
WITH named AS (
  SELECT id, status FROM agent_commands
  WHERE agent_id = :agent_id AND id = ANY (:received::uuid[] || :running::uuid[]) AND next_deadline_at > now() AND sent_at IS NOT NULL
  ORDER BY id FOR UPDATE
), received AS (
  UPDATE agent_commands c SET acknowledged_at = now()
  FROM named WHERE c.id = named.id AND c.status = 'sent' AND c.acknowledged_at IS NULL AND NOT c.id = ANY (:running::uuid[])
  RETURNING c.id
), started AS (
  UPDATE agent_commands c SET status = 'running', acknowledged_at = coalesce(c.acknowledged_at, now()), last_progress_at = now(),
    progress = coalesce(said.message, c.progress), act = :act
  FROM named LEFT JOIN unnest(:said_of::uuid[], :said::text[]) AS said (id, message) ON said.id = named.id
  WHERE c.id = named.id AND c.id = ANY (:running::uuid[]) AND c.status = ANY ('{pending,sent}')
  RETURNING c.id
), renewed AS (
  UPDATE agent_commands c SET last_progress_at = now(), progress = coalesce(said.message, c.progress)
  FROM named LEFT JOIN unnest(:said_of::uuid[], :said::text[]) AS said (id, message) ON said.id = named.id
  WHERE c.id = named.id AND c.id = ANY (:running::uuid[]) AND c.status = 'running'
  RETURNING c.id
)
SELECT c.id, extract(epoch FROM coalesce(c.sent_at, now()) + c.execution_timeout - clock_timestamp())::double precision AS remaining_seconds
FROM agent_commands c JOIN named USING (id);

-- name: cancel
-- Ends commands that are still live. They are locked in the order of their ids, as an agent's report locks several.
WITH named AS MATERIALIZED (
  SELECT id FROM agent_commands WHERE id = ANY (:ids::uuid[]) ORDER BY id FOR UPDATE
)
UPDATE agent_commands c SET status = 'cancelled', completed_at = clock_timestamp(), result = jsonb_build_object('message', :reason::text), act = :act
FROM named WHERE c.id = named.id AND c.status = ANY ('{pending,sent,running}')
RETURNING c.id, c.agent_id, c.command_type, c.status, c.version;

-- name: cancel_of_agent
-- Ends all that an agent still had to do; it has been removed.
UPDATE agent_commands SET status = 'cancelled', completed_at = clock_timestamp(), result = jsonb_build_object('message', :reason::text), act = :act
WHERE agent_id = :agent_id AND next_deadline_at IS NOT NULL AND status = ANY ('{pending,sent,running}')
RETURNING id;

-- name: command
-- One command, as it is now; and whether parameters of it were erased.
SELECT c.*, coalesce(a.name, a.hostname) AS agent_name, extract(epoch FROM c.next_deadline_at - now())::double precision AS remaining_seconds,
  c.params = '{}' AND EXISTS (SELECT FROM audit_erasures e WHERE e.command_id = c.id AND 'params' = ANY (e.fields)) AS params_erased
FROM agent_commands c JOIN agents a ON a.id = c.agent_id
WHERE c.id = :id;

-- name: list_commands
-- Commands, the newest first, from a position on.
SELECT c.id, c.agent_id, coalesce(a.name, a.hostname) AS agent_name, c.command_type, c.params, c.status, c.source, c.created_at, c.sent_at,
  c.completed_at, c.version, c.next_deadline_at, c.deadline_kind, c.deliveries, c.progress, c.retried_from_id,
  extract(epoch FROM c.next_deadline_at - now())::double precision AS remaining_seconds
FROM agent_commands c JOIN agents a ON a.id = c.agent_id
WHERE (:agent_id::uuid IS NULL OR c.agent_id = :agent_id)
  AND (:status::text IS NULL OR c.status = :status)
  AND (:command_type::text IS NULL OR c.command_type = :command_type)
  AND (NOT :live::boolean OR c.next_deadline_at IS NOT NULL)
  AND (:before_at::timestamptz IS NULL OR (c.created_at, c.id) < (:before_at, :before_id::uuid))
ORDER BY c.created_at DESC, c.id DESC LIMIT :limit;

-- name: of_agent
-- What an agent has to do, the oldest first, and what of it has ended, the last one first.
(SELECT id, command_type, params, status, source, created_at, sent_at, completed_at, last_progress_at, progress, next_deadline_at,
  deadline_kind, deliveries FROM agent_commands WHERE agent_id = :agent_id AND next_deadline_at IS NOT NULL ORDER BY created_at, id LIMIT :most_live)
UNION ALL
(SELECT id, command_type, params, status, source, created_at, sent_at, completed_at, last_progress_at, progress, next_deadline_at,
  deadline_kind, deliveries FROM agent_commands WHERE agent_id = :agent_id AND next_deadline_at IS NULL ORDER BY created_at DESC, id DESC LIMIT :most_ended);

-- name: live_of_agents
-- How many commands each of these agents has to do; agents without any are left out.
SELECT agent_id, count(*) AS commands FROM agent_commands WHERE agent_id = ANY (:agents::uuid[]) AND next_deadline_at IS NOT NULL GROUP BY agent_id;

-- name: newest_of_agents
-- The newest command of a type of each of these agents.
SELECT c.* FROM unnest(:agents::uuid[]) AS asked (id) CROSS JOIN LATERAL (
  SELECT id, agent_id, status, created_at, completed_at FROM agent_commands
  WHERE agent_id = asked.id AND command_type = :command_type ORDER BY created_at DESC, id DESC LIMIT 1
) AS c;

-- name: counts
-- How many commands are live, by state, and since when the oldest of each. What has ended is counted by its records.
SELECT status, count(*) AS commands, min(created_at) AS oldest_at FROM agent_commands WHERE next_deadline_at IS NOT NULL GROUP BY status;

-- name: waiting_since
-- A command that waits to be handed out since this moment.
SELECT id FROM agent_commands WHERE created_at = :at AND status = 'pending' ORDER BY id LIMIT 1;

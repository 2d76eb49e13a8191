-- name: seen
-- Notes that agents are there, and tells of each whether anything waits for it: one statement for all that ask at once.
-- Losing this second of presence in a crash harms nobody, so only here the commit does not wait for the disk.
WITH lazily AS MATERIALIZED (
  SELECT set_config('synchronous_commit', 'off', true) AS set
), asking AS (
  SELECT * FROM unnest(:agents::uuid[], :addresses::text[], :metrics::jsonb[], :protocols::integer[]) AS asking (agent_id, address, metrics, protocol)
), noted AS (
  INSERT INTO agent_presence AS p (agent_id, last_seen, address, metrics)
  SELECT agent_id, now(), address::inet, metrics FROM asking, lazily ORDER BY agent_id
  ON CONFLICT (agent_id) DO UPDATE SET last_seen = now(), address = EXCLUDED.address, metrics = coalesce(EXCLUDED.metrics, p.metrics)
  RETURNING agent_id, rapid_until
)
SELECT noted.agent_id, noted.rapid_until, EXISTS (
    SELECT FROM agent_commands c WHERE c.agent_id = noted.agent_id AND c.next_deadline_at > now()
      AND (c.status = 'pending' OR (c.status = 'sent' AND asking.protocol > 0 AND c.deadline_kind = 'start'))
  ) AS waiting
FROM noted JOIN asking USING (agent_id);

-- name: set_rapid
-- Until when an agent was asked to come by every few seconds; NULL: no longer.
UPDATE agent_presence SET rapid_until = now() + :minutes * interval '1 minute' WHERE agent_id = :agent_id;

-- name: newly_enqueued
-- Agents for which a command was enqueued since a moment, and the newest such moment: found by when commands were made, so that it
-- costs the same whatever the number of held calls. A transaction that takes longer than the overlap is found by the round.
SELECT agent_id, created_at FROM agent_commands
WHERE created_at > :since::timestamptz AND status = 'pending' AND next_deadline_at > now()
ORDER BY created_at DESC LIMIT 5000;

-- name: database_now
-- The time, by the database's clock.
SELECT now();

-- name: waiting
-- Which of the agents whose calls are held have something to fetch, or hold something that has ended.
SELECT agent_id FROM agent_commands
WHERE agent_id = ANY (:agents::uuid[]) AND next_deadline_at > now() AND status = 'pending' AND NOT id = ANY (:held::uuid[])
UNION
SELECT agent_id FROM agent_commands
WHERE id = ANY (:held::uuid[]) AND next_deadline_at IS NULL;

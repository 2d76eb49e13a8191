-- name: sweep
-- Ends what is past its deadline, a batch at a time, the longest overdue first. What an agent did not say it received goes
-- back to pending. With it go the totals, and the updates that waited for these commands. One statement, one transaction.
-- The most that a batch can have stands in the text, and how many it is to have where the planner does not see it: so it knows that
-- they are few, and keeps one plan; to plan anew costs ten times as much as an idle sweep. No row past :batch is locked.
WITH due AS MATERIALIZED (
  SELECT * FROM (
    SELECT id, deadline_kind, next_deadline_at,
      CASE WHEN deadline_kind = 'delivery' THEN created_at ELSE coalesce(sent_at, created_at) END AS since
    FROM agent_commands
    WHERE next_deadline_at <= now()
    ORDER BY next_deadline_at LIMIT 1000
    FOR UPDATE SKIP LOCKED
  ) AS overdue LIMIT (SELECT :batch::integer)
), ended AS (
  UPDATE agent_commands c
  SET status = CASE WHEN due.deadline_kind = 'start' THEN 'pending' ELSE 'timed_out' END,
      completed_at = CASE WHEN due.deadline_kind = 'start' THEN NULL ELSE clock_timestamp() END,
      act = :act
  FROM due
  WHERE c.id = due.id AND c.status = ANY ('{pending,sent,running}')
  RETURNING c.id, c.agent_id, c.command_type, c.status,
    extract(epoch FROM clock_timestamp() - due.next_deadline_at) AS late,
    extract(epoch FROM clock_timestamp() - due.since) AS stuck
), totals AS (
  INSERT INTO timeout_totals AS t (replica, command_type, timed_out, stuck_seconds, stuck_buckets, lateness_seconds, lateness_buckets)
  SELECT :replica, command_type, count(*), sum(stuck),
    ARRAY[count(*) FILTER (WHERE stuck <= 60), count(*) FILTER (WHERE stuck <= 300), count(*) FILTER (WHERE stuck <= 900),
          count(*) FILTER (WHERE stuck <= 1800), count(*) FILTER (WHERE stuck <= 3600), count(*) FILTER (WHERE stuck <= 7200),
          count(*) FILTER (WHERE stuck <= 14400), count(*) FILTER (WHERE stuck <= 86400), count(*) FILTER (WHERE stuck <= 604800)],
    sum(late),
    ARRAY[count(*) FILTER (WHERE late <= 0.05), count(*) FILTER (WHERE late <= 0.1), count(*) FILTER (WHERE late <= 0.25),
          count(*) FILTER (WHERE late <= 0.5), count(*) FILTER (WHERE late <= 1), count(*) FILTER (WHERE late <= 5),
          count(*) FILTER (WHERE late <= 60), count(*) FILTER (WHERE late <= 3600)]
  FROM ended WHERE status = 'timed_out' GROUP BY command_type ORDER BY command_type
  ON CONFLICT (replica, command_type) DO UPDATE SET
    timed_out = t.timed_out + EXCLUDED.timed_out,
    stuck_seconds = t.stuck_seconds + EXCLUDED.stuck_seconds,
    stuck_buckets = (SELECT array_agg(a + b ORDER BY i) FROM unnest(t.stuck_buckets, EXCLUDED.stuck_buckets) WITH ORDINALITY AS both_ (a, b, i)),
    lateness_seconds = t.lateness_seconds + EXCLUDED.lateness_seconds,
    lateness_buckets = (SELECT array_agg(a + b ORDER BY i) FROM unnest(t.lateness_buckets, EXCLUDED.lateness_buckets) WITH ORDINALITY AS both_ (a, b, i))
), concerned AS MATERIALIZED (
  -- In the order of their ids, as every other statement that changes several updates
  SELECT u.id, u.status, ended.id AS command_id
  FROM ended JOIN updates u ON u.command_id = ended.id
  WHERE ended.status = 'timed_out' AND u.status = ANY ('{installing,dependencies}')
  ORDER BY u.id FOR UPDATE OF u
), updated AS (
  UPDATE updates u
  SET status = CASE WHEN c.status = 'installing' THEN 'failed' WHEN u.approved_version IS NOT NULL THEN 'approved' ELSE 'pending' END,
      reason = CASE WHEN c.status = 'installing' THEN 'the installation timed out: command ' ELSE 'the dry run timed out: command ' END || c.command_id,
      install_wanted_by = NULL, act = :act
  FROM concerned c WHERE u.id = c.id
  RETURNING u.agent_id, u.package_type, u.package_name, u.current_version, u.available_version, u.severity, u.status, u.reason, u.command_id
), versions AS (
  INSERT INTO update_versions (agent_id, package_type, package_name, version_from, version_to, severity, event, reason, command_id)
  SELECT agent_id, package_type, package_name, current_version, available_version, severity, 'failed', reason, command_id
  FROM updated WHERE status = 'failed'
)
SELECT id, agent_id, command_type, status, late::double precision AS late_seconds FROM ended;

-- name: run_finished
-- Says that this replica swept, and what it did since it last said so.
INSERT INTO timeout_service AS t (replica, last_run_at, last_success_at, runs, timed_out, redelivered)
VALUES (:replica, now(), now(), :runs, :timed_out, :redelivered)
ON CONFLICT (replica) DO UPDATE SET last_run_at = now(), last_success_at = now(), runs = t.runs + EXCLUDED.runs,
  timed_out = t.timed_out + EXCLUDED.timed_out, redelivered = t.redelivered + EXCLUDED.redelivered;

-- name: run_failed
-- Says that sweeps of this replica failed, and why the last one did.
INSERT INTO timeout_service AS t (replica, last_run_at, last_error, last_error_at, runs, failures)
VALUES (:replica, now(), :error, now(), :failures, :failures)
ON CONFLICT (replica) DO UPDATE SET last_run_at = now(), last_error = EXCLUDED.last_error, last_error_at = now(),
  runs = t.runs + EXCLUDED.runs, failures = t.failures + EXCLUDED.failures;

-- name: started
-- A replica takes up its work.
INSERT INTO timeout_service AS t (replica, started_at) VALUES (:replica, now())
ON CONFLICT (replica) DO UPDATE SET started_at = now(), stopped_at = NULL;

-- name: stopped
-- A replica lays down its work.
UPDATE timeout_service SET stopped_at = now() WHERE replica = :replica;

-- name: gap
-- Since when nobody has swept, if that is longer than it may be.
SELECT max(last_success_at) AS began_at FROM timeout_service HAVING max(last_success_at) < now() - :longest::interval;

-- name: claim_gap
-- The first replica to say so handles a gap; another waits here until it has, and then has nothing to do.
INSERT INTO sweep_gaps (began_at, ended_at) VALUES (:began_at, now()) ON CONFLICT (began_at) DO NOTHING RETURNING began_at, ended_at;

-- name: extend
-- What nobody could have delivered gets more time. Only what was there before the gap ended; moving a deadline is no change.
WITH extended AS (
  UPDATE agent_commands SET next_deadline_at = now() + :grace::interval
  WHERE status = 'pending' AND deadline_kind = 'delivery' AND next_deadline_at BETWEEN :began_at AND :ended_at AND created_at < :ended_at
  RETURNING id
), counted AS (
  SELECT count(*) AS commands FROM extended
)
UPDATE sweep_gaps SET extended = counted.commands FROM counted WHERE began_at = :began_at RETURNING extended;

-- name: status
-- The replicas of the service, and what they have done.
SELECT replica, started_at, stopped_at, last_run_at, last_success_at, last_error, last_error_at, runs, failures, timed_out, redelivered,
  extract(epoch FROM now() - last_success_at)::double precision AS seconds_since_success
FROM timeout_service ORDER BY replica;

-- name: lag
-- How much is overdue right now, by how much at the most, and when the next deadline is.
SELECT count(*) FILTER (WHERE next_deadline_at <= now()) AS overdue,
  coalesce(extract(epoch FROM now() - min(next_deadline_at) FILTER (WHERE next_deadline_at <= now())), 0)::double precision AS lag_seconds,
  min(next_deadline_at) FILTER (WHERE next_deadline_at > now()) AS next_deadline_at
FROM (SELECT next_deadline_at FROM agent_commands WHERE next_deadline_at IS NOT NULL ORDER BY next_deadline_at LIMIT 10000) AS nearest;

-- name: preview
-- What expires next, and when. The nearest are found first, by their index alone: what was enqueued for a whole fleet at once expires
-- at the same moment, and to order that by more would be to read all of it.
WITH nearest AS MATERIALIZED (
  SELECT id, agent_id, command_type, status, deadline_kind, next_deadline_at, created_at, sent_at, last_progress_at FROM agent_commands
  WHERE next_deadline_at IS NOT NULL AND next_deadline_at <= now() + :within::interval
  ORDER BY next_deadline_at LIMIT :limit
)
SELECT c.id, c.agent_id, coalesce(a.name, a.hostname) AS agent_name, c.command_type, c.status, c.deadline_kind, c.next_deadline_at,
  coalesce(CASE c.deadline_kind WHEN 'delivery' THEN c.created_at WHEN 'idle' THEN coalesce(c.last_progress_at, c.sent_at) ELSE c.sent_at END, c.created_at) AS runs_since,
  extract(epoch FROM c.next_deadline_at - now())::double precision AS remaining_seconds
FROM nearest c JOIN agents a ON a.id = c.agent_id
ORDER BY c.next_deadline_at, c.id;

-- name: recent_failures
-- Failed sweeps of the last minutes, by any replica.
SELECT count(*) FROM service_faults WHERE kind = 'sweep_failed' AND occurred_at > now() - :within::interval;

-- name: by_hour
-- Timeouts of the last 24 hours by hour and command type; and of each hour, with no type, how late they were, in milliseconds.
-- What was imported was ended elsewhere. A transition is recorded when it happens, so that one or two partitions are read.
SELECT date_bin('1 hour', executed_at, 'epoch') AS hour, command_type, grouping(command_type) = 1 AS of_all, count(*) AS timed_out,
  percentile_disc(0.5) WITHIN GROUP (ORDER BY late) AS median_ms, max(late) AS most_ms
FROM (
  SELECT executed_at, command_type, (metadata ->> 'lateness_ms')::double precision AS late FROM update_logs
  WHERE result = 'timed_out' AND kind = 'transition'
    AND executed_at >= date_bin('1 hour', now(), 'epoch') - interval '23 hours'
    AND created_at >= date_bin('1 hour', now(), 'epoch') - interval '23 hours'
) AS ended
GROUP BY GROUPING SETS ((date_bin('1 hour', executed_at, 'epoch'), command_type), (date_bin('1 hour', executed_at, 'epoch')))
ORDER BY hour, of_all, command_type;

-- name: this_hour
-- The hour that runs, by the database's clock.
SELECT date_bin('1 hour', now(), 'epoch');

-- name: gaps
-- The last times in which nobody swept, the newest first.
SELECT began_at, ended_at, extended FROM sweep_gaps ORDER BY began_at DESC LIMIT :limit;

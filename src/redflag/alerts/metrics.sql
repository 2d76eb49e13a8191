-- name: records
-- Records by kind and result, those that were pruned among them: a total never goes back.
SELECT kind, result, sum(records)::bigint AS records
FROM (SELECT kind, result, count(*) AS records FROM update_logs GROUP BY kind, result UNION ALL SELECT kind, result, records FROM audit_pruned) AS counted
GROUP BY kind, result;

-- name: timeouts
-- Timeouts by command type, over all replicas.
SELECT command_type, sum(timed_out)::bigint AS timed_out, sum(stuck_seconds)::double precision AS stuck_seconds,
  (SELECT array_agg(total ORDER BY i) FROM (SELECT i, sum(n)::bigint AS total FROM timeout_totals same, unnest(same.stuck_buckets) WITH ORDINALITY AS b (n, i)
    WHERE same.command_type = t.command_type GROUP BY i) AS summed) AS stuck_buckets
FROM timeout_totals t GROUP BY command_type ORDER BY command_type;

-- name: lateness
-- How late timeouts were, over all replicas and types.
SELECT coalesce(sum(timed_out), 0)::bigint AS timed_out, coalesce(sum(lateness_seconds), 0)::double precision AS seconds,
  (SELECT array_agg(total ORDER BY i) FROM (SELECT i, sum(n)::bigint AS total FROM timeout_totals, unnest(lateness_buckets) WITH ORDINALITY AS b (n, i)
    GROUP BY i) AS summed) AS buckets
FROM timeout_totals;

-- name: service
-- What the replicas of the timeout service did.
SELECT replica, runs, failures, extract(epoch FROM last_success_at)::double precision AS last_success FROM timeout_service ORDER BY replica;

-- name: database_bytes
-- The database's size.
SELECT pg_database_size(current_database());

-- name: months_ahead
-- How many whole months of the record have a partition waiting, one after the other from next month on. Makes none.
SELECT coalesce(min(month) FILTER (WHERE part IS NULL), 61) - 1
FROM (
  SELECT month, to_regclass('update_logs_' || to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => month), 'YYYY_MM')) AS part
  FROM generate_series(1, 60) AS month
) AS months;

-- name: targets
-- Where checkpoints are sent, and how far each is.
SELECT kind, name, failures, acknowledged_size, extract(epoch FROM last_ok_at)::double precision AS last_ok
FROM log_targets WHERE removed_at IS NULL ORDER BY lower(name);

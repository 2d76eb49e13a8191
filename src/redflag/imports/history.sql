-- name: suspects_update_logs
-- Records that were marked as they were read: they may hold a secret, or more output than is kept.
SELECT id, jsonb_build_object('action', action, 'stdout', stdout, 'stderr', stderr) AS told FROM staged_update_logs WHERE suspect;

-- name: clean_update_logs
-- Without the secrets.
UPDATE staged_update_logs s SET action = c.told ->> 'action', stdout = c.told ->> 'stdout', stderr = c.told ->> 'stderr'
FROM unnest(:ids::uuid[], :told::jsonb[]) AS c (id, told) WHERE s.id = c.id;

-- name: judge_update_logs
-- A record keeps its id: one that has it is the same.
UPDATE staged_update_logs s SET fate = 'already there' FROM update_logs u WHERE u.id = s.id;

-- name: pages_update_logs
-- How many pages of the staging table there are to go through.
SELECT (pg_relation_size('pg_temp.staged_update_logs') + 8191) / 8192;

-- name: insert_update_logs
-- History, some pages of the staging table at a time, in the order of time. Written directly: the trigger says that it is of kind import,
-- by whom and from where.
INSERT INTO update_logs (id, executed_at, agent_id, action, result, metadata, stdout, stderr, exit_code, duration_seconds, salt)
SELECT s.id, coalesce(s.executed_at AT TIME ZONE :zone, now()), s.agent_id, s.action, coalesce(w.ours, 'error'),
  CASE WHEN s.update_package_id IS NULL AND s.executed_at IS NOT NULL AND w.ours = s.result THEN jsonb_build_object('original_id', s.id)
    ELSE jsonb_strip_nulls(jsonb_build_object('original_id', s.id, 'update_id', s.update_package_id,
      'reported_result', CASE WHEN w.ours IS DISTINCT FROM s.result THEN s.result END,
      'executed_at', CASE WHEN s.executed_at IS NULL THEN 'unknown' END)) END,
  s.stdout, s.stderr, s.exit_code, greatest(s.duration_seconds, 0), NULL  -- the trigger makes the salt
FROM staged_update_logs s LEFT JOIN unnest(:their_results::text[], :our_results::text[]) AS w (theirs, ours) ON w.theirs = s.result
WHERE s.ctid >= :low::tid AND s.ctid < :high::tid AND s.fate IS NULL
ORDER BY s.executed_at;

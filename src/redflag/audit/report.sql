-- name: plan_for_these_values
-- A plan for all filters at once would read the whole table; in this transaction every plan is made for its values.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true);

-- name: period
-- The period as far as it is over, and what time it is.
SELECT :since::timestamptz AS since, least(:until::timestamptz, now()) AS until, now() AS made_at;

-- name: completeness
-- Records of a period, and how many of them have a position, or wait for one; and the positions between the first and the last. `same` says whether
-- those with a position and those that wait are the very records of the table: by the XOR of their ids' hashes, which needs no join.
WITH records AS (
  SELECT count(*) AS records, bit_xor(uuid_hash_extended(id, 7)) AS ids FROM update_logs WHERE created_at >= :since AND created_at < :until
), placed AS (
  SELECT count(*) AS placed, min(position) AS first, max(position) AS last, bit_xor(uuid_hash_extended(record_id, 7)) AS ids
  FROM audit_entries WHERE recorded_at >= :since AND recorded_at < :until
), waiting AS (
  SELECT count(*) AS waiting, bit_xor(uuid_hash_extended(id, 7)) AS ids FROM audit_pending WHERE created_at >= :since AND created_at < :until
)
SELECT records, placed, waiting, first, last,
  coalesce(records.ids, 0) = (coalesce(placed.ids, 0) # coalesce(waiting.ids, 0)) AS same,
  (SELECT count(*) FROM audit_entries WHERE position BETWEEN placed.first AND placed.last) AS positions,
  (SELECT pruned FROM audit_log) AS pruned,
  (SELECT count(*) FROM audit_checkpoints WHERE published_at >= :since AND published_at < :until) AS checkpoints
FROM records, placed, waiting;

-- name: first_gap
-- The first position of a range that is missing.
SELECT position + 1 FROM (
  SELECT position, lead(position, 1, :last::bigint + 1) OVER (ORDER BY position) AS next FROM audit_entries WHERE position BETWEEN :first AND :last
) AS one WHERE next <> position + 1 ORDER BY position LIMIT 1;

-- name: broken_versions
-- Commands of which a record of the period is missing: their versions do not run without a gap.
SELECT count(*) AS commands, min(command_id::text) AS example FROM (
  SELECT command_id FROM update_logs
  WHERE created_at >= :since AND created_at < :until AND kind = ANY ('{transition,import}') AND version IS NOT NULL AND command_id IS NOT NULL
  GROUP BY command_id HAVING count(*) <> max(version) - min(version) + 1
) AS broken;

-- name: last_fsck
-- The newest examination of the log that was recorded. Its actors are looked for one by one in their index: there are a few hundred.
WITH RECURSIVE actors AS (
  (SELECT actor FROM update_logs WHERE actor NOT LIKE 'agent:%' ORDER BY actor LIMIT 1)
  UNION ALL
  SELECT (SELECT u.actor FROM update_logs u WHERE u.actor NOT LIKE 'agent:%' AND u.actor > a.actor ORDER BY u.actor LIMIT 1)
  FROM actors a WHERE a.actor IS NOT NULL
)
SELECT f.executed_at, f.actor, f.result, f.message, f.metadata
FROM actors a CROSS JOIN LATERAL (
  SELECT u.executed_at, u.actor, u.result, u.message, u.metadata FROM update_logs u
  WHERE u.actor = a.actor AND u.actor NOT LIKE 'agent:%' AND u.kind = 'service' AND u.action = 'fsck'
  ORDER BY u.executed_at DESC LIMIT 1
) AS f
WHERE starts_with(a.actor, 'service:fsck@')
ORDER BY f.executed_at DESC LIMIT 1;

-- name: commands
-- What became of commands, by type: how many were enqueued, how many ended and how, and how many reports came late.
SELECT count(*) OVER () AS of, coalesce(command_type, '(none)') AS command_type,
  count(*) FILTER (WHERE kind = 'transition' AND version = 1) AS enqueued,
  count(*) FILTER (WHERE kind = 'transition' AND result = 'success') AS success,
  count(*) FILTER (WHERE kind = 'transition' AND result = 'partial') AS partial,
  count(*) FILTER (WHERE kind = 'transition' AND result = 'failed') AS failed,
  count(*) FILTER (WHERE kind = 'transition' AND result = 'error') AS error,
  count(*) FILTER (WHERE kind = 'transition' AND result = 'timed_out') AS timed_out,
  count(*) FILTER (WHERE kind = 'transition' AND result = 'cancelled') AS cancelled,
  count(*) FILTER (WHERE kind = 'late_result') AS late_results,
  count(*) FILTER (WHERE kind = 'transition' AND metadata ->> 'forced' = 'true') AS forced
FROM update_logs
WHERE created_at >= :since AND created_at < :until AND kind = ANY ('{transition,late_result}')
  AND (:agent_id::uuid IS NULL OR agent_id = :agent_id) AND (:command_id::uuid IS NULL OR command_id = :command_id)
  AND (:command_type::text IS NULL OR command_type = :command_type) AND (:kind::text IS NULL OR kind = :kind)
  AND (:result::text IS NULL OR result = :result) AND (:actor::text IS NULL OR actor = :actor)
GROUP BY command_type ORDER BY command_type LIMIT :most;

-- name: timeouts_by_reason
-- Timeouts by type and reason: how long they were stuck, and how many were reported later or retried.
WITH timeouts AS MATERIALIZED (
  SELECT command_id, command_type, metadata ->> 'timeout_reason' AS reason,
    CASE WHEN jsonb_typeof(metadata -> 'stuck_seconds') = 'number' THEN (metadata ->> 'stuck_seconds')::double precision END AS stuck
  FROM update_logs
  WHERE kind = 'transition' AND result = 'timed_out' AND executed_at >= :since AND executed_at < :until AND created_at >= :since AND created_at < :until
    AND (:agent_id::uuid IS NULL OR agent_id = :agent_id) AND (:command_id::uuid IS NULL OR command_id = :command_id)
    AND (:command_type::text IS NULL OR command_type = :command_type) AND (:kind::text IS NULL OR kind = :kind)
    AND (:result::text IS NULL OR result = :result) AND (:actor::text IS NULL OR actor = :actor)
), late AS (
  SELECT DISTINCT command_id FROM update_logs WHERE kind = 'late_result' AND created_at >= :since AND command_id IN (SELECT command_id FROM timeouts)
), retried AS (
  SELECT DISTINCT retried_from_id FROM agent_commands WHERE retried_from_id IN (SELECT command_id FROM timeouts)
)
SELECT count(*) OVER () AS of, coalesce(t.command_type, '(none)') AS command_type, coalesce(t.reason, '(erased)') AS reason, count(*) AS timeouts,
  percentile_disc(0.5) WITHIN GROUP (ORDER BY t.stuck) AS median_stuck_seconds, max(t.stuck) AS longest_stuck_seconds,
  count(late.command_id) AS reported_later, count(retried.retried_from_id) AS retried
FROM timeouts t LEFT JOIN late ON late.command_id = t.command_id LEFT JOIN retried ON retried.retried_from_id = t.command_id
GROUP BY t.command_type, t.reason ORDER BY t.command_type, t.reason LIMIT :most;

-- name: timeouts
-- Each timeout, and what became of its command: the first late report, and the first retry with who asked for it.
WITH found AS (
  SELECT id, executed_at, created_at, command_id, agent_id, command_type, sent_at, metadata, count(*) OVER () AS of
  FROM update_logs
  WHERE kind = 'transition' AND result = 'timed_out' AND executed_at >= :since AND executed_at < :until AND created_at >= :since AND created_at < :until
    AND (:agent_id::uuid IS NULL OR agent_id = :agent_id) AND (:command_id::uuid IS NULL OR command_id = :command_id)
    AND (:command_type::text IS NULL OR command_type = :command_type) AND (:kind::text IS NULL OR kind = :kind)
    AND (:result::text IS NULL OR result = :result) AND (:actor::text IS NULL OR actor = :actor)
  ORDER BY executed_at, id LIMIT :most
), listed AS MATERIALIZED (
  SELECT * FROM found
), retries AS MATERIALIZED (
  SELECT DISTINCT ON (retried_from_id) id, retried_from_id, status, created_at, count(*) OVER (PARTITION BY retried_from_id) AS times
  FROM agent_commands WHERE retried_from_id IN (SELECT command_id FROM listed) ORDER BY retried_from_id, created_at, id
)
SELECT l.of, l.executed_at AS timed_out_at, l.command_id, l.command_type, l.agent_id, coalesce(a.name, a.hostname) AS agent, l.sent_at,
  CASE WHEN jsonb_typeof(l.metadata -> 'stuck_seconds') = 'number' THEN (l.metadata ->> 'stuck_seconds')::double precision END AS stuck_seconds,
  l.metadata ->> 'timeout_reason' AS reason, l.metadata ->> 'timeout_duration' AS allowed, l.metadata ->> 'detected_by' AS detected_by,
  late.executed_at AS reported_at, late.result AS reported, late.times AS reports,
  r.id AS retried_as, r.created_at AS retried_at, r.status AS retry_status, r.times AS retries,
  (SELECT u.actor FROM update_logs u WHERE u.command_id = r.id AND u.version = 1 ORDER BY u.executed_at LIMIT 1) AS retried_by
FROM listed l
  LEFT JOIN agents a ON a.id = l.agent_id
  LEFT JOIN retries r ON r.retried_from_id = l.command_id
  LEFT JOIN LATERAL (
    SELECT u.executed_at, u.result, count(*) OVER () AS times FROM update_logs u
    WHERE u.command_id = l.command_id AND u.kind = 'late_result' AND u.created_at >= l.created_at ORDER BY u.executed_at LIMIT 1
  ) AS late ON true
ORDER BY l.executed_at, l.id;

-- name: activity
-- Who did what, how often, from when to when. All agents are one row of each kind: what each host did is in the events.
SELECT count(*) OVER () AS of, CASE WHEN actor LIKE 'agent:%' THEN 'agents' ELSE actor END AS actor, kind,
  CASE kind WHEN 'transition' THEN CASE WHEN version = 1 THEN 'command enqueued' ELSE 'command ' || result END
            WHEN 'late_result' THEN 'reported after the end' WHEN 'import' THEN 'imported' WHEN 'note' THEN 'inserted by hand'
            ELSE coalesce(action, kind) END AS action,
  result, count(*) AS times, min(executed_at) AS first_at, max(executed_at) AS last_at
FROM update_logs
WHERE created_at >= :since AND created_at < :until
  AND (:agent_id::uuid IS NULL OR agent_id = :agent_id) AND (:command_id::uuid IS NULL OR command_id = :command_id)
  AND (:command_type::text IS NULL OR command_type = :command_type) AND (:kind::text IS NULL OR kind = :kind)
  AND (:result::text IS NULL OR result = :result) AND (:actor::text IS NULL OR actor = :actor)
GROUP BY 2, 3, 4, 5 ORDER BY 2, 3, 4, 5 LIMIT :most;

-- name: agents_seen
-- How many agents left a record.
SELECT count(*) FROM (
  SELECT DISTINCT actor FROM update_logs
  WHERE created_at >= :since AND created_at < :until AND actor LIKE 'agent:%'
    AND (:agent_id::uuid IS NULL OR agent_id = :agent_id) AND (:command_id::uuid IS NULL OR command_id = :command_id)
    AND (:command_type::text IS NULL OR command_type = :command_type) AND (:kind::text IS NULL OR kind = :kind)
    AND (:result::text IS NULL OR result = :result) AND (:actor::text IS NULL OR actor = :actor)
) AS seen;

-- name: refused_names
-- Refused access by the name that asked. A record stands for all refusals of its name and action in one minute.
SELECT count(*) OVER () AS of, actor, coalesce(action, kind) AS action, count(*) AS minutes, min(executed_at) AS first_at, max(executed_at) AS last_at,
  count(DISTINCT metadata ->> 'address') AS addresses, (array_agg(message ORDER BY executed_at DESC))[1] AS last_message
FROM update_logs
WHERE result = 'denied' AND actor NOT LIKE 'service:guard@%' AND created_at >= :since AND created_at < :until
  AND (:agent_id::uuid IS NULL OR agent_id = :agent_id) AND (:command_id::uuid IS NULL OR command_id = :command_id)
  AND (:command_type::text IS NULL OR command_type = :command_type) AND (:kind::text IS NULL OR kind = :kind)
  AND (:result::text IS NULL OR result = :result) AND (:actor::text IS NULL OR actor = :actor)
GROUP BY 2, 3 ORDER BY minutes DESC, 2, 3 LIMIT :most;

-- name: refused_addresses
-- Refused access by address: without a name each request is counted, with one each minute.
SELECT * FROM (
  SELECT count(*) OVER () AS of, coalesce(metadata ->> 'address', '(not known)') AS address,
    coalesce(sum(CASE WHEN jsonb_typeof(metadata -> 'times') = 'number' THEN (metadata ->> 'times')::numeric END)
      FILTER (WHERE actor LIKE 'service:guard@%'), 0)::bigint AS without_name,
    count(*) FILTER (WHERE actor NOT LIKE 'service:guard@%') AS with_name,
    min(executed_at) AS first_at, max(executed_at) AS last_at, (array_agg(metadata ->> 'last_action' ORDER BY executed_at DESC)
      FILTER (WHERE metadata ->> 'last_action' IS NOT NULL))[1] AS last_asked
  FROM update_logs
  WHERE result = 'denied' AND created_at >= :since AND created_at < :until
    AND (:agent_id::uuid IS NULL OR agent_id = :agent_id) AND (:command_id::uuid IS NULL OR command_id = :command_id)
    AND (:command_type::text IS NULL OR command_type = :command_type) AND (:kind::text IS NULL OR kind = :kind)
    AND (:result::text IS NULL OR result = :result) AND (:actor::text IS NULL OR actor = :actor)
  GROUP BY 2
) AS refused ORDER BY without_name + with_name DESC, address LIMIT :most;

-- name: decisions
-- What people and programs decided about updates; what agents and the service made of it is not among them.
SELECT f.*, coalesce(a.name, a.hostname) AS agent, u.package_name, u.package_type
FROM (
  SELECT count(*) OVER () AS of, executed_at, actor, agent_id, message, metadata ->> 'subject_id' AS update_id,
    metadata -> 'old' ->> 'status' AS old_status, metadata -> 'new' ->> 'status' AS new_status,
    metadata -> 'new' ->> 'approved_version' AS approved_version, metadata -> 'new' ->> 'reason' AS reason
  FROM update_logs
  WHERE kind = 'change' AND metadata ->> 'subject' = 'update' AND actor NOT LIKE 'agent:%' AND actor NOT LIKE 'service:%'
    AND created_at >= :since AND created_at < :until
    AND (:agent_id::uuid IS NULL OR agent_id = :agent_id) AND (:command_id::uuid IS NULL OR command_id = :command_id)
    AND (:command_type::text IS NULL OR command_type = :command_type) AND (:kind::text IS NULL OR kind = :kind)
    AND (:result::text IS NULL OR result = :result) AND (:actor::text IS NULL OR actor = :actor)
  ORDER BY executed_at, id LIMIT :most
) AS f LEFT JOIN agents a ON a.id = f.agent_id LEFT JOIN updates u ON u.id::text = f.update_id
ORDER BY f.executed_at;

-- name: changes
-- Changes of users, tokens, policies, and of whatever else is decided upon here, but not of updates and hosts, nor what concerns
-- the record itself. A seat that an agent took is none.
SELECT count(*) OVER () AS of, executed_at, actor, coalesce(action, kind) AS action, message, metadata ->> 'address' AS address
FROM update_logs
WHERE ((kind = 'change' AND coalesce(metadata ->> 'subject', '') <> ALL ('{update,agent}' || :custody_subjects::text[]))
    OR (kind = 'service' AND action = 'policy_applied'))
  AND actor NOT LIKE 'agent:%' AND created_at >= :since AND created_at < :until
  AND (:agent_id::uuid IS NULL OR agent_id = :agent_id) AND (:command_id::uuid IS NULL OR command_id = :command_id)
  AND (:command_type::text IS NULL OR command_type = :command_type) AND (:kind::text IS NULL OR kind = :kind)
  AND (:result::text IS NULL OR result = :result) AND (:actor::text IS NULL OR actor = :actor)
ORDER BY executed_at, id LIMIT :most;

-- name: custody
-- What was done to the record itself: taken out, examined, erased, held, pruned; and to where it is sent.
SELECT count(*) OVER () AS of, executed_at, actor, coalesce(action, kind) AS action, result, message
FROM update_logs
WHERE (kind = ANY ('{erasure,snapshot}') OR action = ANY (:custody_actions::text[])
    OR (kind = 'change' AND metadata ->> 'subject' = ANY (:custody_subjects::text[])))
  AND created_at >= :since AND created_at < :until
  AND (:agent_id::uuid IS NULL OR agent_id = :agent_id) AND (:command_id::uuid IS NULL OR command_id = :command_id)
  AND (:command_type::text IS NULL OR command_type = :command_type) AND (:kind::text IS NULL OR kind = :kind)
  AND (:result::text IS NULL OR result = :result) AND (:actor::text IS NULL OR actor = :actor)
ORDER BY executed_at, id LIMIT :most;

-- name: service
-- When the service that ends commands started, stopped, did not run or was run by hand, and whatever else it says of itself.
SELECT count(*) OVER () AS of, executed_at, actor, coalesce(action, kind) AS action, result, message
FROM update_logs
WHERE kind = 'service' AND coalesce(action, '') <> 'policy_applied' AND NOT coalesce(action, '') = ANY (:custody_actions::text[])
  AND actor NOT LIKE 'agent:%' AND created_at >= :since AND created_at < :until
  AND (:agent_id::uuid IS NULL OR agent_id = :agent_id) AND (:command_id::uuid IS NULL OR command_id = :command_id)
  AND (:command_type::text IS NULL OR command_type = :command_type) AND (:kind::text IS NULL OR kind = :kind)
  AND (:result::text IS NULL OR result = :result) AND (:actor::text IS NULL OR actor = :actor)
ORDER BY executed_at, id LIMIT :most;

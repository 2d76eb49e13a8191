-- name: record
-- One record of what happened without a row being changed.
INSERT INTO update_logs (kind, actor, action, result, message, agent_id, command_id, metadata)
VALUES (:kind, :actor, :action, :result, :message, :agent_id, :command_id, :metadata);

-- name: record_once_an_hour
-- A read is recorded the first time in its hour, and counted after that.
WITH counted AS (
  INSERT INTO audit_throttle AS t (key, bucket) VALUES (:key, date_trunc('hour', now(), 'UTC'))
  ON CONFLICT (key, bucket) DO UPDATE SET times = t.times + 1
  RETURNING times
)
INSERT INTO update_logs (kind, actor, action, result, message, metadata)
SELECT 'access', :actor, :action, 'success', :message, :metadata FROM counted WHERE times = 1;

-- name: record_refusal
-- The first refusal of a known name in a minute is recorded; the rest are counted.
WITH counted AS (
  INSERT INTO audit_throttle AS t (key, bucket) VALUES (:key, date_trunc('minute', now()))
  ON CONFLICT (key, bucket) DO UPDATE SET times = t.times + 1
  RETURNING times
)
INSERT INTO update_logs (kind, actor, action, result, message, metadata)
SELECT 'access', :actor, :action, 'denied', :message, :metadata FROM counted WHERE times = 1;

-- name: count_refusal
-- Anonymous refusals are counted by address and minute; past the given number of addresses all others share one row.
INSERT INTO audit_throttle AS t (key, bucket, detail)
SELECT CASE WHEN (SELECT count(*) FROM audit_throttle WHERE bucket = date_trunc('minute', now()) AND key LIKE 'anonymous:%') < :most::bigint
              OR EXISTS (SELECT FROM audit_throttle WHERE key = 'anonymous:' || :address::text AND bucket = date_trunc('minute', now()))
            THEN 'anonymous:' || :address::text ELSE 'anonymous:others' END,
       date_trunc('minute', now()), jsonb_build_object('action', :action::text)
ON CONFLICT (key, bucket) DO UPDATE SET times = t.times + 1;

-- name: record_counted_refusals
-- One record per address for every minute that is over; the counters go in the same statement.
WITH ended AS (
  DELETE FROM audit_throttle WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM audit_throttle WHERE key LIKE 'anonymous:%' AND bucket < date_trunc('minute', now()) FOR UPDATE SKIP LOCKED))
  RETURNING key, bucket, times, detail
)
INSERT INTO update_logs (kind, actor, action, result, message, executed_at, metadata)
SELECT 'access', :actor, 'access_refused', 'denied',
       'refused ' || times || ' requests without a valid token from ' || substr(key, 11),
       bucket, jsonb_build_object('address', substr(key, 11), 'times', times, 'last_action', detail ->> 'action')
FROM ended ORDER BY bucket, key;

-- name: forget_counters
-- Counters whose time is long over.
DELETE FROM audit_throttle WHERE bucket < now() - :kept::interval AND key NOT LIKE 'anonymous:%';

-- name: last_examination
-- The last fsck whose outcome was recorded, by the service itself and not by a hand.
SELECT executed_at, result, message FROM update_logs
WHERE action = 'fsck' AND kind = 'service' AND actor LIKE 'service:fsck@%' ORDER BY executed_at DESC, id DESC LIMIT 1;

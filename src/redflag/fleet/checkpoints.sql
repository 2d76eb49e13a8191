-- name: count_alarm
-- Counts what an agent reports of the log for one reason in this hour; the first is recorded.
INSERT INTO audit_throttle AS t (key, bucket) VALUES (:key, date_trunc('hour', now(), 'UTC'))
ON CONFLICT (key, bucket) DO UPDATE SET times = t.times + 1
RETURNING times;

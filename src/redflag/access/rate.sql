-- name: count
-- Counts one try in the current window of a key, or begins a new one; the count stops one past the limit.
INSERT INTO rate_limits AS r (key) VALUES (:key)
ON CONFLICT (key) DO UPDATE SET
  since = CASE WHEN r.since <= now() - :spell::interval THEN now() ELSE r.since END,
  tries = CASE WHEN r.since <= now() - :spell THEN 1 ELSE least(r.tries, :most::integer) + 1 END
RETURNING tries, ceil(extract(epoch FROM since + :spell - now()))::integer AS retry_after;

-- name: purge
-- Counters whose window is over, whichever it was.
DELETE FROM rate_limits WHERE since < now() - :kept::interval;

-- name: store
-- Faults of this replica, each when it happened.
INSERT INTO service_faults (kind, occurred_at, replica, detail)
SELECT kind, occurred_at, :replica, detail FROM unnest(:kinds::text[], :times::timestamptz[], :details::text[]) AS fault (kind, occurred_at, detail);

-- name: totals
-- How many faults there ever were, by kind.
SELECT kind, count(*) AS faults FROM service_faults GROUP BY kind;

-- name: passed_over
-- Records that wait for a position for more than a minute though later ones have one, with what was said of each, if anything.
SELECT p.id::text AS id, extract(epoch FROM now() - p.created_at)::double precision AS seconds,
  (SELECT f.detail FROM service_faults f WHERE f.kind = 'log_stopped' AND strpos(f.detail, p.id::text) > 0 ORDER BY f.id DESC LIMIT 1) AS why
FROM audit_pending p
WHERE p.created_at < now() - interval '1 minute' AND p.created_at < (SELECT recorded_at FROM audit_entries ORDER BY position DESC LIMIT 1)
ORDER BY p.created_at, p.id LIMIT :most;

-- name: recent
-- Faults since a while, by kind, with the last one's words.
SELECT kind, count(*) AS faults, max(occurred_at) AS last_at, (array_agg(detail ORDER BY occurred_at DESC))[1] AS last_detail
FROM service_faults WHERE occurred_at > now() - :within::interval GROUP BY kind;

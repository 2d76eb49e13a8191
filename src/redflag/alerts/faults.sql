-- name: store
-- Faults of this replica, each when it happened.
INSERT INTO service_faults (kind, occurred_at, replica, detail)
SELECT kind, occurred_at, :replica, detail FROM unnest(:kinds::text[], :times::timestamptz[], :details::text[]) AS fault (kind, occurred_at, detail);

-- name: totals
-- How many faults there ever were, by kind.
SELECT kind, count(*) AS faults FROM service_faults GROUP BY kind;

-- name: recent
-- Faults since a while, by kind, with the last one's words.
SELECT kind, count(*) AS faults, max(occurred_at) AS last_at, (array_agg(detail ORDER BY occurred_at DESC))[1] AS last_detail
FROM service_faults WHERE occurred_at > now() - :within::interval GROUP BY kind;

-- name: database_now
-- The database's clock, from which on to look.
SELECT now();

-- name: happened
-- What kinds of records came since then, and of changes which actions: what the pages may have to draw anew.
SELECT 'transition' AS kind, NULL AS action
WHERE EXISTS (SELECT FROM update_logs WHERE executed_at > :since AND kind = 'transition')
UNION ALL
(SELECT DISTINCT kind, action FROM (
  SELECT kind, action FROM update_logs WHERE executed_at > :since AND kind <> 'transition' ORDER BY executed_at DESC LIMIT 500
) AS others);

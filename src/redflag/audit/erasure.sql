-- name: erase
-- One record; the triggers do all of it.
INSERT INTO audit_erasures (record_id, fields, reason, act) VALUES (:record_id, :fields, :reason, :act)
RETURNING record_id, fields, logged_id, (SELECT position FROM audit_entries e WHERE e.record_id = audit_erasures.record_id) AS position;

-- name: now
-- The database's clock: what is recorded later was not meant.
SELECT clock_timestamp();

-- name: survey
-- What there is under a name: what can be erased, and what not yet. Agents have an index of their own, and are no persons.
SELECT count(*) FILTER (WHERE NOT waiting AND hold IS NULL AND NOT live) AS erasable, count(*) FILTER (WHERE waiting) AS waiting,
  count(*) FILTER (WHERE hold IS NOT NULL) AS held, count(*) FILTER (WHERE live AND hold IS NULL AND NOT waiting) AS live,
  coalesce(array_agg(DISTINCT hold) FILTER (WHERE hold IS NOT NULL), '{}') AS holds
FROM (
  SELECT NOT EXISTS (SELECT FROM audit_entries e WHERE e.record_id = u.id) AS waiting,
    legal_hold_on(u.created_at, u.agent_id, u.command_id, u.actor) AS hold,
    EXISTS (SELECT FROM agent_commands c WHERE c.id = u.command_id AND c.next_deadline_at IS NOT NULL) AS live
  FROM update_logs u
  WHERE u.actor = :actor AND u.actor NOT LIKE 'agent:%' AND u.created_at <= :before::timestamptz AND (u.salt IS NOT NULL OR u.salts ? 'actor')
) AS found;

-- name: erase_actor
-- Actor and address of records under a name, the oldest first, as far as nothing speaks against it.
INSERT INTO audit_erasures (record_id, fields, reason, act)
SELECT u.id, CASE WHEN jsonb_typeof(u.metadata) = 'object' AND u.metadata ? 'address' AND (u.salt IS NOT NULL OR u.salts ? 'address')
  THEN '{actor,address}' ELSE '{actor}' END::text[], :reason, :act
FROM update_logs u
WHERE u.actor = :actor AND u.actor NOT LIKE 'agent:%' AND u.created_at <= :before::timestamptz AND (u.salt IS NOT NULL OR u.salts ? 'actor')
  AND EXISTS (SELECT FROM audit_entries e WHERE e.record_id = u.id)
  AND legal_hold_on(u.created_at, u.agent_id, u.command_id, u.actor) IS NULL
  AND NOT EXISTS (SELECT FROM agent_commands c WHERE c.id = u.command_id AND c.next_deadline_at IS NOT NULL)
ORDER BY u.executed_at, u.id LIMIT :batch;

-- name: forget_copies
-- The rows of settings and the fleet keep who changed them last. That is no change of them, and leaves no record.
WITH f1 AS (UPDATE users SET act = :act WHERE act ->> 'actor' = :actor),
  f2 AS (UPDATE api_tokens SET act = :act WHERE act ->> 'actor' = :actor),
  f3 AS (UPDATE enrolment_tokens SET act = :act WHERE act ->> 'actor' = :actor),
  f4 AS (UPDATE agents SET act = :act WHERE act ->> 'actor' = :actor),
  f5 AS (UPDATE updates SET act = :act WHERE act ->> 'actor' = :actor),
  f6 AS (UPDATE timeout_policies SET act = :act WHERE act ->> 'actor' = :actor),
  f7 AS (UPDATE log_targets SET act = :act WHERE act ->> 'actor' = :actor),
  f8 AS (UPDATE log_forwarders SET act = :act WHERE act ->> 'actor' = :actor)
UPDATE legal_holds SET act = :act WHERE act ->> 'actor' = :actor;

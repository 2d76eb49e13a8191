-- name: policies
-- Every policy, the one for all other types last.
SELECT command_type, delivery_timeout, start_timeout, execution_timeout, idle_timeout, updated_at FROM timeout_policies
ORDER BY command_type = '*', command_type;

-- name: set_policy
-- Makes or changes the policy of a type; what is not given stays, or is taken from the policy of all other types.
INSERT INTO timeout_policies AS p (command_type, delivery_timeout, start_timeout, execution_timeout, idle_timeout, act)
SELECT :command_type, coalesce(:delivery::interval, base.delivery_timeout), coalesce(:start::interval, base.start_timeout),
  coalesce(:execution::interval, base.execution_timeout),
  CASE WHEN :no_idle::boolean THEN NULL ELSE coalesce(:idle::interval, base.idle_timeout) END, :act
FROM timeout_policies base WHERE base.command_type = '*'
ON CONFLICT (command_type) DO UPDATE SET
  delivery_timeout = coalesce(:delivery, p.delivery_timeout), start_timeout = coalesce(:start, p.start_timeout),
  execution_timeout = coalesce(:execution, p.execution_timeout),
  idle_timeout = CASE WHEN :no_idle THEN NULL ELSE coalesce(:idle, p.idle_timeout) END,
  updated_at = now(), act = :act
RETURNING command_type, delivery_timeout, start_timeout, execution_timeout, idle_timeout, updated_at;

-- name: apply_to_live
-- Gives the live commands of a type the deadlines of its policy now. Moving a deadline is no change of a command.
WITH policy AS (
  SELECT * FROM timeout_policies WHERE command_type = :command_type
)
UPDATE agent_commands c SET delivery_timeout = p.delivery_timeout, start_timeout = p.start_timeout,
  execution_timeout = p.execution_timeout, idle_timeout = p.idle_timeout
FROM policy p
WHERE c.next_deadline_at IS NOT NULL
  AND (c.command_type = p.command_type
       OR (p.command_type = '*' AND NOT EXISTS (SELECT FROM timeout_policies own WHERE own.command_type = c.command_type)));

-- name: live_of_type
-- How many commands of a type are live, counted as far as :most; of * those of every type without a policy of its own.
SELECT count(*) FROM (
  SELECT FROM agent_commands c WHERE c.next_deadline_at IS NOT NULL
    AND (c.command_type = :command_type
      OR (:command_type = '*' AND NOT EXISTS (SELECT FROM timeout_policies own WHERE own.command_type = c.command_type)))
  LIMIT :most
) AS counted;

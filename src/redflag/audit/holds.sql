-- name: place
-- A hold, from this moment on.
INSERT INTO legal_holds (name, reason, since, until, agent_id, command_id, actor, act)
VALUES (:name, :reason, :since, :until, :agent_id, :command_id, :actor, :act)
RETURNING id, name, reason, since, until, agent_id, command_id, actor, created_at, released_at;

-- name: in_force
-- The hold of a name that is in force.
SELECT id FROM legal_holds WHERE lower(name) = lower(:name) AND released_at IS NULL;

-- name: release
-- Ends a hold, once.
UPDATE legal_holds SET released_at = now(), act = :act WHERE id = :id AND released_at IS NULL
RETURNING id, name, reason, since, until, agent_id, command_id, actor, created_at, released_at;

-- name: hold
-- One hold.
SELECT id, name, reason, since, until, agent_id, command_id, actor, created_at, released_at FROM legal_holds WHERE id = :id;

-- name: holds
-- Holds, those in force first, and of these the newest.
SELECT id, name, reason, since, until, agent_id, command_id, actor, created_at, released_at FROM legal_holds
WHERE :released::boolean OR released_at IS NULL ORDER BY released_at DESC NULLS FIRST, created_at DESC, id LIMIT 1000;

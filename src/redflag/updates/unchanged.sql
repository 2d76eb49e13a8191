-- name: items
-- How many items a scan had that would change nothing now: it was taken in full before and touched no update, and the agent's
-- updates are as they were then. NULL for any other. One look, of one moment, as if the scan were taken at that moment.
SELECT s.items
FROM update_scans s JOIN agents a ON a.id = s.agent_id
WHERE s.agent_id = :agent_id AND s.digest = :digest AND s.holds_until > now() AND a.removed_at IS NULL
  AND s.state = updates_state(s.agent_id);

-- name: remember
-- A scan that touched no update, in a state of them. The few newest that were so in the same state are kept beside it: an agent may
-- report each type of its packages by itself.
WITH gone AS (
  DELETE FROM update_scans WHERE agent_id = :agent_id AND digest <> :digest AND (state <> :state
    OR digest IN (SELECT digest FROM update_scans WHERE agent_id = :agent_id ORDER BY taken_at DESC, digest OFFSET 7))
)
INSERT INTO update_scans (agent_id, digest, items, state, holds_until)
SELECT :agent_id, :digest, :items, :state, coalesce(min(last_seen_at), now()) + interval '1 hour'
FROM updates WHERE agent_id = :agent_id AND last_seen_at >= now() - interval '1 hour'
ON CONFLICT (agent_id, digest) DO UPDATE SET items = EXCLUDED.items, state = EXCLUDED.state, holds_until = EXCLUDED.holds_until,
  taken_at = EXCLUDED.taken_at;

-- Updates as people look for them: by state and severity across the fleet, in the order of their packages. Lists and counts merge the
-- few groups that there are of these two, so that each costs what it shows. Those of removed agents are in no list: they are not in the
-- index either, for which each says of itself that its agent is gone. The index serves what asks by state alone as well.
ALTER TABLE updates ADD COLUMN agent_removed boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN updates.agent_removed IS 'Whether its agent was removed; follows agents.removed_at by the trigger agents_removed_updates';
UPDATE updates SET agent_removed = true WHERE agent_id IN (SELECT id FROM agents WHERE removed_at IS NOT NULL);
CREATE INDEX updates_shown ON updates (status, severity, package_name, package_type, agent_id) WHERE NOT agent_removed;
DROP INDEX updates_status;

-- The locks are taken in the order of the reports: the agent's own, then its updates by id.
CREATE FUNCTION agents_removed_updates() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('updates of ' || NEW.id::text, 0));
  PERFORM FROM updates WHERE agent_id = NEW.id ORDER BY id FOR UPDATE;
  UPDATE updates SET agent_removed = NEW.removed_at IS NOT NULL
  WHERE agent_id = NEW.id AND agent_removed <> (NEW.removed_at IS NOT NULL);
  RETURN NULL;
END $$;
CREATE TRIGGER agents_removed_updates AFTER UPDATE ON agents FOR EACH ROW
  WHEN ((OLD.removed_at IS NULL) <> (NEW.removed_at IS NULL)) EXECUTE FUNCTION agents_removed_updates();
ALTER TABLE agents ENABLE ALWAYS TRIGGER agents_removed_updates;

-- Updates that somebody works on together, so that what becomes of them is seen in one place. A working set, no record: each decision
-- has its own, in the transaction of the change.
CREATE TABLE update_batches (
  id         uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
  created_at timestamptz NOT NULL DEFAULT now(),
  acted_at   timestamptz NOT NULL DEFAULT now(),
  actor      text        NOT NULL,
  act        text        NOT NULL,
  done       integer     NOT NULL,
  refused    jsonb       NOT NULL DEFAULT '[]',
  update_ids uuid[]      NOT NULL CHECK (cardinality(update_ids) BETWEEN 1 AND 10000)
);
COMMENT ON TABLE update_batches IS 'Updates that were decided on together, for the page that shows how far they are; kept for 30 days';
COMMENT ON COLUMN update_batches.act IS 'The last thing that was done with them; actor, acted_at, done and refused are of it';
COMMENT ON COLUMN update_batches.refused IS 'What was not done and why: [{why, count, update_ids: some of them}]';
CREATE INDEX update_batches_created ON update_batches (created_at);

-- Updates as people look for them: by state and severity across the fleet, in the order of their packages. Lists and counts merge the
-- few groups that there are of these two, so that each costs what it shows. What asked by state alone is served by it as well.
CREATE INDEX updates_shown ON updates (status, severity, package_name, package_type, agent_id);
DROP INDEX updates_status;

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

-- How people find agents among many, and which enrolment token let each in.
ALTER TABLE agents ADD COLUMN enrolled_with uuid;
COMMENT ON COLUMN agents.enrolled_with IS 'The enrolment token that it came with; NULL: it was imported, or came before this was kept';
ALTER TABLE enrolment_tokens ADD COLUMN first_scan boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN enrolment_tokens.first_scan IS 'Every host that enrols with it is scanned for updates at once';

-- What a host says of itself changes every hour; room in a page keeps that from touching the indexes
ALTER TABLE agents SET (fillfactor = 80);
CREATE INDEX agents_by_name ON agents (lower(coalesce(name, hostname)), id) WHERE removed_at IS NULL;
CREATE INDEX agents_tags ON agents USING gin (tags) WHERE removed_at IS NULL;
CREATE INDEX agents_enrolled_with ON agents (enrolled_with, created_at, id) WHERE enrolled_with IS NOT NULL;
-- How often a system is there is known to the planner, so that one that hardly any host has is not looked for agent by agent
CREATE STATISTICS agents_system ON (coalesce(nullif(os_version, ''), os_type)) FROM agents;

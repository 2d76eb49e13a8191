-- Scans that said nothing new: most scans do, and taking one apart again costs more than all else that a host asks for in a day.
CREATE TABLE update_scans (
  agent_id    uuid        NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
  digest      bytea       NOT NULL CHECK (octet_length(digest) = 32),
  items       integer     NOT NULL,
  state       bigint      NOT NULL,
  holds_until timestamptz NOT NULL,
  taken_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (agent_id, digest)
);
COMMENT ON COLUMN update_scans.digest IS 'Of all that the agent sent, and of what decides how it is read';
COMMENT ON COLUMN update_scans.state IS 'The agent''s updates when this scan, taken in full, touched none of them; it holds for as long as they are as they were';
COMMENT ON COLUMN update_scans.holds_until IS 'When the first of its updates is to be noted as seen again';

-- An agent's updates as a number that is another when any of them is added, goes, or differs in what a scan's effect depends on.
-- NULL while one of them works or waits for what only a scan can say: then what a scan does depends on commands as well.
CREATE FUNCTION updates_state(agent uuid) RETURNS bigint LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  SELECT CASE WHEN count(*) FILTER (WHERE status = ANY ('{dependencies,installing,unconfirmed}')) = 0
    THEN coalesce(bit_xor(hash_record_extended(ROW (id, package_type, package_name, digest, status, last_seen_at), 0)), 0) END
  FROM updates WHERE agent_id = agent
$$;

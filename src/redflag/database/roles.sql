-- What the server's role may do, and its name in the one function that the triggers ask. Run by the owner after every
-- migration; needs the setting redflag.migrating_for. Whatever is not granted here is refused.
DO $$
DECLARE
  server name := current_setting('redflag.migrating_for');
  part   regclass;
BEGIN
  EXECUTE format('CREATE OR REPLACE FUNCTION redflag_server_role() RETURNS name LANGUAGE sql IMMUTABLE PARALLEL SAFE AS %L',
    format('SELECT %L::name', server));
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), server);
  EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM %I', current_schema(), server);
  EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO %I', current_schema(), server);
  EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA %I TO %I', current_schema(), server);
  EXECUTE format('GRANT INSERT ON update_logs, audit_throttle, users, sessions, api_tokens, rate_limits, agents, agent_presence, agent_tokens,
    enrolment_tokens, timeout_policies, agent_commands, timeout_service, timeout_totals, sweep_gaps, service_faults, updates, update_versions, update_scans, update_batches,
    audit_entries, audit_tiles, audit_checkpoints, log_targets, log_cosignatures, log_forwarders, legal_holds, audit_erasures, audit_snapshots, audit_snapshot_states TO %I', server);
  EXECUTE format('GRANT UPDATE ON audit_throttle, users, sessions, api_tokens, rate_limits, agents, agent_presence, agent_tokens,
    enrolment_tokens, timeout_policies, agent_commands, timeout_service, timeout_totals, sweep_gaps, updates, update_scans, update_batches, audit_pending, audit_log, audit_tiles, log_targets, log_forwarders, legal_holds, log_retention TO %I', server);
  EXECUTE format('GRANT DELETE ON audit_pending, audit_throttle, sessions, rate_limits, agent_tokens, service_faults, update_scans, update_batches TO %I', server);
  REVOKE ALL ON FUNCTION update_logs_make_partitions(integer) FROM PUBLIC;
  EXECUTE format('GRANT EXECUTE ON FUNCTION update_logs_make_partitions(integer) TO %I', server);
  REVOKE ALL ON FUNCTION audit_prune(integer) FROM PUBLIC;
  EXECUTE format('GRANT EXECUTE ON FUNCTION audit_prune(integer) TO %I', server);
END $$;

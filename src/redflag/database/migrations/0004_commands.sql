-- Commands, their deadlines, and the triggers that let no change pass without its record.

CREATE TABLE timeout_policies (
  command_type      text     NOT NULL PRIMARY KEY CHECK (length(command_type) BETWEEN 1 AND 100),
  delivery_timeout  interval NOT NULL DEFAULT '30 minutes' CHECK (delivery_timeout > '0'),
  start_timeout     interval DEFAULT '60 seconds' CHECK (start_timeout > '0'),
  execution_timeout interval NOT NULL DEFAULT '2 hours' CHECK (execution_timeout > '0'),
  idle_timeout      interval CHECK (idle_timeout > '0'),
  updated_at        timestamptz NOT NULL DEFAULT now(),
  act               jsonb
);
COMMENT ON TABLE timeout_policies IS 'How long a command of a type may take. The row of type * holds for every type that has none of its own';
INSERT INTO timeout_policies (command_type) VALUES ('*');
CREATE TRIGGER timeout_policies_record AFTER INSERT OR UPDATE OR DELETE ON timeout_policies FOR EACH ROW
  EXECUTE FUNCTION record_change('policy', 'command_type', 'delivery_timeout', 'start_timeout', 'execution_timeout', 'idle_timeout');
ALTER TABLE timeout_policies ENABLE ALWAYS TRIGGER timeout_policies_record;

CREATE TABLE agent_commands (
  id                uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
  agent_id          uuid        NOT NULL REFERENCES agents (id),
  command_type      text        NOT NULL CHECK (length(command_type) BETWEEN 1 AND 100),
  params            jsonb       NOT NULL DEFAULT '{}',
  status            text        NOT NULL DEFAULT 'pending',
  source            text        NOT NULL DEFAULT 'manual',
  created_at        timestamptz NOT NULL DEFAULT now(),
  sent_at           timestamptz,
  completed_at      timestamptz,
  result            jsonb,
  version           integer     NOT NULL DEFAULT 1,
  retried_from_id   uuid,
  deliveries        integer     NOT NULL DEFAULT 0,
  acknowledges      boolean     NOT NULL DEFAULT false,
  acknowledged_at   timestamptz,
  last_progress_at  timestamptz,
  progress          text,
  delivery_timeout  interval    NOT NULL,
  start_timeout     interval,
  execution_timeout interval    NOT NULL,
  idle_timeout      interval,
  next_deadline_at  timestamptz,
  deadline_kind     text,
  late_reports      text[]      NOT NULL DEFAULT '{}',
  act               jsonb,
  CONSTRAINT agent_commands_status_check CHECK (status IN
    ('pending', 'sent', 'running', 'completed', 'failed', 'timed_out', 'cancelled')),
  CONSTRAINT agent_commands_deadline_check CHECK ((next_deadline_at IS NOT NULL) = (status IN ('pending', 'sent', 'running'))),
  CONSTRAINT agent_commands_deadline_kind_check CHECK (deadline_kind IN ('delivery', 'start', 'execution', 'idle'))
) WITH (fillfactor = 80);
COMMENT ON COLUMN agent_commands.act IS 'Who makes this very change; honoured from the server''s role only, and must differ from the last';
COMMENT ON COLUMN agent_commands.acknowledges IS 'It was handed to an agent that says what it received';
COMMENT ON COLUMN agent_commands.late_reports IS 'Digests of the reports that came after the end, so that each is recorded once';

CREATE INDEX agent_commands_due ON agent_commands (next_deadline_at) WHERE next_deadline_at IS NOT NULL;
CREATE INDEX agent_commands_live ON agent_commands (agent_id, created_at, id) WHERE next_deadline_at IS NOT NULL;
CREATE INDEX agent_commands_created ON agent_commands (created_at, id);
CREATE INDEX agent_commands_agent ON agent_commands (agent_id, created_at, id);

-- The transition table of redflag/commands/states.py in SQL; a test holds the two together, pair by pair.
CREATE FUNCTION command_transition_is_legal(old_status text, new_status text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE old_status
    WHEN 'pending' THEN new_status IN ('pending', 'sent', 'running', 'completed', 'failed', 'timed_out', 'cancelled')
    WHEN 'sent'    THEN new_status IN ('pending', 'sent', 'running', 'completed', 'failed', 'timed_out', 'cancelled')
    WHEN 'running' THEN new_status IN ('running', 'completed', 'failed', 'timed_out', 'cancelled')
    ELSE false
  END
$$;

-- '2 h 0 min 3 s': an interval as people say it.
CREATE FUNCTION spell_interval(span interval) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
  seconds bigint := floor(extract(epoch FROM span));
BEGIN
  IF seconds >= 3600 THEN
    RETURN (seconds / 3600) || ' h ' || (seconds % 3600 / 60) || ' min ' || (seconds % 60) || ' s';
  ELSIF seconds >= 60 THEN
    RETURN (seconds / 60) || ' min ' || (seconds % 60) || ' s';
  END IF;
  RETURN round(extract(epoch FROM span), 1) || ' s';
END $$;

-- The command types that RedFlag's own agents (protocol 0) report on; the list has no other home. Whatever else they are
-- handed they pass over in silence, so that only its deadline ends it.
CREATE FUNCTION redflag_agents_report_on(command_type text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT command_type IN ('scan_updates', 'dry_run_update', 'install_updates', 'confirm_dependencies', 'enable_heartbeat',
    'disable_heartbeat', 'reboot')
$$;

-- Before a change: refuses what is illegal, counts the version, says who acts, and finds the nearest deadline.
CREATE FUNCTION agent_commands_guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  by_server boolean := session_user = redflag_server_role();
  changed   boolean := TG_OP = 'INSERT';
  forced    boolean := false;
  importing boolean := TG_OP = 'INSERT' AND redflag_importing();
  legal     boolean;
  base      timestamptz;
BEGIN
  -- What an erasure (0009_erasure.sql) takes from a command is no change of it
  IF TG_OP = 'UPDATE' AND pg_trigger_depth() > 1 THEN
    IF NEW.params IN (OLD.params, '{}')
        AND to_jsonb(NEW) - '{params,result,act,late_reports,progress}'::text[] = to_jsonb(OLD) - '{params,result,act,late_reports,progress}'::text[]
        AND EXISTS (SELECT FROM audit_erasures WHERE command_id = OLD.id AND xid = pg_current_xact_id()) THEN
      RETURN NEW;
    END IF;
  END IF;
  IF NEW.status IN ('pending', 'sent', 'running') THEN
    NEW.completed_at := NULL;
  END IF;
  IF TG_OP = 'INSERT' THEN
    NEW.version := 1;
    -- An imported command begins as what it was where it came from
    legal := NEW.status = 'pending' OR importing;
    SELECT coalesce(NEW.delivery_timeout, p.delivery_timeout), coalesce(NEW.start_timeout, p.start_timeout),
           coalesce(NEW.execution_timeout, p.execution_timeout), coalesce(NEW.idle_timeout, p.idle_timeout)
      INTO NEW.delivery_timeout, NEW.start_timeout, NEW.execution_timeout, NEW.idle_timeout
      FROM timeout_policies p WHERE p.command_type IN (NEW.command_type, '*') ORDER BY p.command_type = '*' LIMIT 1;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'there is no timeout policy for commands of type %', NEW.command_type USING ERRCODE = 'RF005',
        HINT = 'The policy of type * has been removed; add it again.';
    END IF;
  ELSE
    IF NEW.id <> OLD.id OR NEW.created_at <> OLD.created_at THEN
      RAISE EXCEPTION 'command %: its id and created_at never change', OLD.id USING ERRCODE = 'RF003',
        HINT = 'Enqueue a new command instead.';
    END IF;
    changed := (NEW.status, NEW.command_type, NEW.params, NEW.agent_id, NEW.sent_at, NEW.completed_at)
      IS DISTINCT FROM (OLD.status, OLD.command_type, OLD.params, OLD.agent_id, OLD.sent_at, OLD.completed_at);
    NEW.version := OLD.version;
    IF NOT changed THEN
      legal := true;
      NEW.act := OLD.act;
      IF by_server AND (NEW.source, NEW.retried_from_id) IS DISTINCT FROM (OLD.source, OLD.retried_from_id) THEN
        RAISE EXCEPTION 'command %: where it came from never changes', OLD.id USING ERRCODE = 'RF003';
      END IF;
      IF by_server AND OLD.next_deadline_at IS NULL AND NEW.result IS DISTINCT FROM OLD.result THEN
        RAISE EXCEPTION 'command % has ended, and its result stays as it was reported', OLD.id USING ERRCODE = 'RF003',
          HINT = 'A report that comes later is a record of its own.';
      END IF;
    ELSE
      NEW.version := OLD.version + 1;
      legal := command_transition_is_legal(OLD.status, NEW.status)
        -- What was never handed out cannot have been started or ended by its agent
        AND NOT (OLD.status = 'pending' AND OLD.sent_at IS NULL AND NEW.status IN ('running', 'completed', 'failed'))
        AND NOT (NEW.status = 'timed_out' AND OLD.next_deadline_at > clock_timestamp())
        AND NEW.command_type = OLD.command_type AND NEW.agent_id = OLD.agent_id
        AND (NEW.params = OLD.params OR (OLD.status = 'pending' AND NEW.status = 'pending'));
    END IF;
  END IF;

  IF NOT legal THEN
    forced := NOT by_server AND pg_has_role(session_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'MEMBER');
    IF forced AND TG_OP = 'UPDATE' THEN
      IF EXISTS (SELECT FROM audit_snapshot_states WHERE snapshot = (SELECT max(position) FROM audit_snapshots) AND command_id = OLD.id AND archived) THEN
        RAISE EXCEPTION 'command % is past its retention and is being pruned', OLD.id USING ERRCODE = 'RF003';
      END IF;
    END IF;
    IF NOT forced THEN
      IF TG_OP = 'INSERT' THEN
        RAISE EXCEPTION 'a command begins as pending, not as %', NEW.status USING ERRCODE = 'RF001';
      END IF;
      RAISE EXCEPTION 'command %: % may not become %', OLD.id, OLD.status, NEW.status USING ERRCODE = 'RF001',
        HINT = 'Read its current state, then decide again.';
    END IF;
  END IF;

  IF changed THEN
    IF by_server THEN
      IF coalesce(NEW.act ->> 'actor', '') = '' OR (TG_OP = 'UPDATE' AND NEW.act = OLD.act) THEN
        RAISE EXCEPTION 'a change of command % names no actor', NEW.id USING ERRCODE = 'RF002',
          HINT = 'Set act to who acts in this very request.';
      END IF;
    ELSE
      IF NEW.params = 'null' THEN
        NEW.params := '{}';
      END IF;
      NEW.act := CASE WHEN importing THEN coalesce(NEW.act, '{}') - 'forced' ELSE '{}' END
        || jsonb_strip_nulls(jsonb_build_object('actor', 'db:' || session_user, 'address', host(inet_client_addr()),
          'application', nullif(current_setting('application_name'), ''), 'forced', CASE WHEN forced THEN true END,
          'imported_from', CASE WHEN importing THEN current_setting('redflag.imported_from', true) END));
    END IF;
  END IF;

  IF NEW.status IN ('pending', 'sent', 'running') THEN
    IF TG_OP = 'UPDATE' AND OLD.next_deadline_at IS NULL THEN
      NEW.result := NULL;
    END IF;
    IF NEW.status <> 'pending' AND NEW.sent_at IS NULL THEN
      NEW.sent_at := now();
    END IF;
    IF TG_OP = 'INSERT' OR (NEW.status, NEW.sent_at, NEW.acknowledged_at, NEW.last_progress_at, NEW.delivery_timeout, NEW.start_timeout, NEW.execution_timeout, NEW.idle_timeout)
        IS DISTINCT FROM (OLD.status, OLD.sent_at, OLD.acknowledged_at, OLD.last_progress_at, OLD.delivery_timeout, OLD.start_timeout, OLD.execution_timeout, OLD.idle_timeout) THEN
      IF NEW.status = 'pending' THEN
        NEW.next_deadline_at := NEW.created_at + NEW.delivery_timeout;
        NEW.deadline_kind := 'delivery';
      ELSE
        base := NEW.sent_at;
        NEW.next_deadline_at := base + NEW.execution_timeout;
        NEW.deadline_kind := 'execution';
        IF NEW.status = 'sent' AND NEW.acknowledges AND NEW.acknowledged_at IS NULL AND NEW.start_timeout IS NOT NULL
            AND NEW.next_deadline_at > now() THEN
          -- Handed out again without an answer, it keeps the start deadline of the first time
          IF TG_OP = 'UPDATE' AND OLD.status = 'sent' AND OLD.deadline_kind = 'start' THEN
            base := OLD.next_deadline_at - OLD.start_timeout;
          END IF;
          IF base + NEW.start_timeout < NEW.next_deadline_at THEN
            NEW.next_deadline_at := base + NEW.start_timeout;
            NEW.deadline_kind := 'start';
          END IF;
        ELSIF NEW.status = 'running' AND NEW.idle_timeout IS NOT NULL
            AND coalesce(NEW.last_progress_at, base) + NEW.idle_timeout < NEW.next_deadline_at THEN
          NEW.next_deadline_at := coalesce(NEW.last_progress_at, base) + NEW.idle_timeout;
          NEW.deadline_kind := 'idle';
        END IF;
      END IF;
    ELSIF by_server AND (NEW.next_deadline_at, NEW.deadline_kind) IS DISTINCT FROM (OLD.next_deadline_at, OLD.deadline_kind)
        AND NOT (NEW.status = 'pending' AND NEW.deadline_kind = OLD.deadline_kind
                 AND NEW.next_deadline_at BETWEEN OLD.next_deadline_at AND now() + interval '1 day') THEN
      RAISE EXCEPTION 'command %: its deadline follows from its times, and is not the server''s to set', OLD.id USING ERRCODE = 'RF003',
        HINT = 'Change its timeouts; only what waits for delivery may be given more time, after nobody could have delivered it.';
    END IF;
  ELSE
    NEW.next_deadline_at := NULL;
    NEW.deadline_kind := NULL;
    IF changed AND NEW.completed_at IS NULL THEN
      NEW.completed_at := clock_timestamp();
    END IF;
  END IF;
  RETURN NEW;
END $$;

-- After a change: its record, in the same transaction. If it cannot be written, the change does not happen.
CREATE FUNCTION agent_commands_record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  act     jsonb := NEW.act;
  report  jsonb;
  moment  timestamptz := clock_timestamp();
  outcome text := NEW.status;
  said    text;
  details jsonb := act - 'actor';
  due     timestamptz;
  due_by  text;
  span    interval;
  stuck   interval;
  mute    boolean := false;
  -- The insert of an import is the beginning of its command here: version 1, in whatever status it had
  importing boolean := TG_OP = 'INSERT' AND redflag_importing();
BEGIN
  IF TG_OP = 'UPDATE' THEN
    details := details || jsonb_build_object('from', OLD.status);
  ELSIF NEW.retried_from_id IS NOT NULL THEN
    details := details || jsonb_build_object('retried_from_id', NEW.retried_from_id);
  END IF;
  IF importing THEN
    said := act ->> 'message';
    details := details - 'message';
  END IF;
  IF NEW.status IN ('completed', 'failed', 'cancelled') THEN
    report := NEW.result;
    said := coalesce(said, report ->> 'message');
    -- What an agent says stands beside what is known here, and never in its place
    IF jsonb_typeof(report -> 'metadata') = 'object' THEN
      details := (report -> 'metadata') - 'forced' || details;
    END IF;
    IF NEW.status = 'completed' THEN
      outcome := CASE WHEN report ->> 'outcome' = 'partial' THEN 'partial' ELSE 'success' END;
    ELSIF NEW.status = 'failed' THEN
      outcome := CASE WHEN report ->> 'outcome' = 'error' THEN 'error' ELSE 'failed' END;
    END IF;
  ELSIF NEW.status = 'timed_out' AND NOT importing THEN
    due_by := CASE WHEN TG_OP = 'UPDATE' THEN OLD.deadline_kind END;
    due_by := coalesce(due_by, CASE WHEN NEW.sent_at IS NULL THEN 'delivery' ELSE 'execution' END);
    span := CASE due_by WHEN 'delivery' THEN NEW.delivery_timeout WHEN 'start' THEN NEW.start_timeout
                        WHEN 'idle' THEN NEW.idle_timeout ELSE NEW.execution_timeout END;
    due := CASE WHEN TG_OP = 'UPDATE' THEN OLD.next_deadline_at END;
    due := coalesce(due, moment);
    stuck := moment - CASE WHEN due_by = 'delivery' THEN NEW.created_at ELSE coalesce(NEW.sent_at, NEW.created_at) END;
    mute := due_by <> 'delivery' AND NOT redflag_agents_report_on(NEW.command_type)
      AND EXISTS (SELECT FROM agents WHERE id = NEW.agent_id AND protocol = 0);
    details := jsonb_build_object(
      'timeout_reason', CASE WHEN mute THEN 'this agent version does not report on this command type' 
        ELSE CASE due_by WHEN 'delivery' THEN 'not_delivered' WHEN 'start' THEN 'not_started' WHEN 'idle' THEN 'no_progress' ELSE 'no_response' END END,
      'timeout_duration', spell_interval(span),
      'deadline_kind', due_by,
      'deadline_at', due,
      'stuck_seconds', round(extract(epoch FROM stuck), 3),
      'detected_by', act ->> 'actor',
      'detection_method', 'by hand',
      'service_version', 'none',
      'lateness_ms', greatest(0, round(extract(epoch FROM moment - due) * 1000))
    ) || details;
    said := 'timed out after ' || spell_interval(stuck) || ': ' || CASE WHEN mute THEN 'this agent version does not report on this command type' ELSE CASE due_by
      WHEN 'delivery' THEN 'it was not delivered within ' WHEN 'start' THEN 'the agent did not start it within '
      WHEN 'idle' THEN 'the agent reported no progress for ' ELSE 'the agent did not report within ' END || spell_interval(span) END;
  ELSIF TG_OP = 'UPDATE' AND NEW.status = OLD.status THEN
    said := CASE WHEN NEW.params IS DISTINCT FROM OLD.params THEN 'parameters changed' WHEN NEW.status = 'sent' THEN 'handed out again' END;
  ELSIF TG_OP = 'UPDATE' AND NEW.status = 'pending' THEN
    said := 'taken back, to be handed out again: the agent did not say that it received it';
  END IF;
  IF NEW.sent_at IS NOT NULL AND NEW.status IN ('timed_out', 'completed', 'failed', 'cancelled') THEN
    details := details || jsonb_build_object('sent_at', NEW.sent_at);
  END IF;
  INSERT INTO update_logs (kind, command_id, agent_id, version, command_type, action, actor, result, message, metadata, params,
                           sent_at, completed_at, stdout, stderr, exit_code, duration_seconds, executed_at, created_at)
  VALUES (CASE WHEN importing THEN 'import' ELSE 'transition' END, NEW.id, NEW.agent_id, NEW.version, NEW.command_type, report ->> 'action', act ->> 'actor', outcome, said, details,
          CASE WHEN TG_OP = 'INSERT' OR NEW.params IS DISTINCT FROM OLD.params THEN NEW.params END,
          NEW.sent_at, NEW.completed_at, report ->> 'stdout', report ->> 'stderr',
          (report ->> 'exit_code')::integer, (report ->> 'duration_seconds')::integer, moment, moment);
  RETURN NULL;
END $$;

CREATE FUNCTION agent_commands_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'agent_commands keeps every command: % is refused', TG_OP USING ERRCODE = 'RF003',
    HINT = 'Cancel the command instead.';
END $$;

-- Named so that the guard runs after any other BEFORE trigger: PostgreSQL fires them in the order of their names.
CREATE TRIGGER zz_agent_commands_guard BEFORE INSERT OR UPDATE ON agent_commands FOR EACH ROW EXECUTE FUNCTION agent_commands_guard();
CREATE TRIGGER agent_commands_record_insert AFTER INSERT ON agent_commands FOR EACH ROW EXECUTE FUNCTION agent_commands_record();
CREATE TRIGGER agent_commands_record_update AFTER UPDATE ON agent_commands FOR EACH ROW
  WHEN (OLD.version IS DISTINCT FROM NEW.version) EXECUTE FUNCTION agent_commands_record();
CREATE TRIGGER agent_commands_refuse_row BEFORE DELETE ON agent_commands FOR EACH ROW EXECUTE FUNCTION agent_commands_refuse();
CREATE TRIGGER agent_commands_refuse_statement BEFORE DELETE OR TRUNCATE ON agent_commands FOR EACH STATEMENT EXECUTE FUNCTION agent_commands_refuse();
ALTER TABLE agent_commands ENABLE ALWAYS TRIGGER zz_agent_commands_guard;
ALTER TABLE agent_commands ENABLE ALWAYS TRIGGER agent_commands_record_insert;
ALTER TABLE agent_commands ENABLE ALWAYS TRIGGER agent_commands_record_update;
ALTER TABLE agent_commands ENABLE ALWAYS TRIGGER agent_commands_refuse_row;
ALTER TABLE agent_commands ENABLE ALWAYS TRIGGER agent_commands_refuse_statement;

-- Each replica of the timeout service, and what it has done: the totals that metrics add up.
CREATE TABLE timeout_service (
  replica         text        NOT NULL PRIMARY KEY,
  started_at      timestamptz NOT NULL DEFAULT now(),
  stopped_at      timestamptz,
  last_run_at     timestamptz,
  last_success_at timestamptz,
  last_error      text,
  last_error_at   timestamptz,
  runs            bigint      NOT NULL DEFAULT 0,
  failures        bigint      NOT NULL DEFAULT 0,
  timed_out       bigint      NOT NULL DEFAULT 0,
  redelivered     bigint      NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- Totals by command type and replica, so that no two replicas wait for each other. Buckets as metrics name them.
CREATE TABLE timeout_totals (
  replica          text     NOT NULL,
  command_type     text     NOT NULL,
  timed_out        bigint   NOT NULL DEFAULT 0,
  stuck_seconds    numeric  NOT NULL DEFAULT 0,
  stuck_buckets    bigint[] NOT NULL,
  lateness_seconds numeric  NOT NULL DEFAULT 0,
  lateness_buckets bigint[] NOT NULL,
  PRIMARY KEY (replica, command_type)
) WITH (fillfactor = 50);

-- Times in which nobody swept, each handled once.
CREATE TABLE sweep_gaps (
  began_at timestamptz NOT NULL PRIMARY KEY,
  ended_at timestamptz NOT NULL,
  extended bigint      NOT NULL DEFAULT 0
);

-- What went wrong in the server itself: failed sweeps, refused records, violated constraints of its own connections.
CREATE TABLE service_faults (
  id          bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind        text        NOT NULL CHECK (kind IN ('sweep_failed', 'constraint_violation', 'audit_write_refused', 'log_stopped', 'log_rollback_seen', 'log_target_failed', 'forwarder_failed')),
  occurred_at timestamptz NOT NULL DEFAULT now(),
  replica     text        NOT NULL,
  detail      text        NOT NULL
);
CREATE INDEX service_faults_recent ON service_faults (kind, occurred_at);

-- What an import from another system may write, and what its records say: their kind is `import`, their actor the database
-- role that imports, and their metadata names where they came from (docs/decisions/0009-how-an-import-is-recorded.md). Only the
-- four functions that write records are replaced; whatever they refused before they refuse still.

-- Whether the transaction is an import: said by a setting, and believed of members of the owner's role only, never of the
-- server's. To be asked inside SECURITY DEFINER functions, where current_user is the owner.
CREATE FUNCTION redflag_importing() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT coalesce(current_setting('redflag.importing', true), '') = 'on'
    AND session_user IS DISTINCT FROM redflag_server_role() AND pg_has_role(session_user, current_user, 'MEMBER')
$$;

-- The command types that RedFlag's own agents (protocol 0) report on; the list has no other home. Whatever else they are
-- handed they pass over in silence, so that only its deadline ends it.
CREATE FUNCTION redflag_agents_report_on(command_type text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT command_type IN ('scan_updates', 'dry_run_update', 'install_updates', 'confirm_dependencies', 'enable_heartbeat',
    'disable_heartbeat', 'reboot')
$$;

-- Admits a record. Rows that no trigger wrote are what their writer may say: the server names kind and actor (never a
-- transition), anybody else leaves a note under the name of their database role, and an import its history.
CREATE OR REPLACE FUNCTION update_logs_admit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF pg_trigger_depth() = 1 THEN
    IF session_user = redflag_server_role() THEN
      IF NEW.kind IN ('transition', 'note') THEN
        RAISE EXCEPTION 'a record of kind % is not the server''s to write', NEW.kind USING ERRCODE = 'RF004',
          HINT = 'Transitions are written by the trigger on agent_commands, notes by hand.';
      END IF;
      IF NEW.actor = '' THEN
        RAISE EXCEPTION 'a record of kind % names no actor', NEW.kind USING ERRCODE = 'RF002',
          HINT = 'Give the actor who caused it.';
      END IF;
    ELSE
      NEW.kind := CASE WHEN redflag_importing() THEN 'import' ELSE 'note' END;
      NEW.actor := 'db:' || session_user;
      NEW.version := NULL;
      NEW.metadata := NEW.metadata || jsonb_strip_nulls(jsonb_build_object(
        'address', host(inet_client_addr()), 'application', nullif(current_setting('application_name'), ''),
        'imported_from', CASE WHEN NEW.kind = 'import' THEN current_setting('redflag.imported_from', true) END));
    END IF;
    IF abs(extract(epoch FROM NEW.created_at - clock_timestamp())) > 5 AND NEW.created_at <> now() THEN
      RAISE EXCEPTION 'created_at is when a record is written, and the database''s to fill' USING ERRCODE = 'RF004',
        HINT = 'Leave created_at out; executed_at says when it happened.';
    END IF;
    NEW.salt := uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());
    NEW.salts := NULL;
  END IF;
  INSERT INTO audit_pending (created_at, id) VALUES (NEW.created_at, NEW.id);
  RETURN NEW;
END $$;

-- The record of a change in any other table that people or the service decide upon, or that an import fills.
CREATE OR REPLACE FUNCTION record_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  before jsonb := CASE WHEN TG_OP = 'INSERT' THEN '{}'::jsonb ELSE to_jsonb(OLD) END;
  after  jsonb := CASE WHEN TG_OP = 'DELETE' THEN '{}'::jsonb ELSE to_jsonb(NEW) END;
  this   jsonb := CASE WHEN TG_OP = 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
  act    jsonb := '{}';
  who    text;
  past   jsonb := '{}';
  new_   jsonb := '{}';
  said   text[] := '{}';
  col    text;
  label  text;
  importing boolean := TG_OP = 'INSERT' AND redflag_importing();
BEGIN
  FOR i IN 1 .. TG_NARGS - 1 LOOP
    col := ltrim(TG_ARGV[i], '!');
    CONTINUE WHEN before -> col IS NOT DISTINCT FROM after -> col;
    CONTINUE WHEN coalesce(before -> col, 'null') = 'null' AND coalesce(after -> col, 'null') = 'null';
    IF TG_ARGV[i] LIKE '!%' THEN
      said := said || (col || ' set');
      new_ := new_ || jsonb_build_object(col, '(secret)');
    ELSE
      past := past || jsonb_build_object(col, before -> col);
      new_ := new_ || jsonb_build_object(col, after -> col);
      said := said || CASE WHEN TG_OP = 'UPDATE' THEN format('%s: %s → %s', col, coalesce(before ->> col, 'none'), coalesce(after ->> col, 'none'))
                           ELSE format('%s: %s', col, coalesce(this ->> col, 'none')) END;
    END IF;
  END LOOP;
  IF TG_OP = 'UPDATE' AND new_ = '{}' THEN
    RETURN NULL;
  END IF;
  IF session_user = redflag_server_role() THEN
    act := coalesce(after -> 'act', '{}');
    IF coalesce(act ->> 'actor', '') = '' OR act = before -> 'act' THEN
      RAISE EXCEPTION 'a change of % % names no actor', TG_ARGV[0], coalesce(this ->> 'id', this ->> 'command_type') USING ERRCODE = 'RF002',
        HINT = 'Set act to who acts in this very request.';
    END IF;
    who := act ->> 'actor';
  ELSE
    who := 'db:' || session_user;
    act := jsonb_strip_nulls(jsonb_build_object(
      'address', host(inet_client_addr()), 'application', nullif(current_setting('application_name'), '')));
    IF importing THEN
      -- What the importer knows beside the row's columns; it never stands in the place of what is known here
      act := (coalesce(after -> 'act', '{}') - 'actor') || act || jsonb_build_object('imported_from', current_setting('redflag.imported_from', true));
    END IF;
  END IF;
  label := coalesce(this ->> 'name', this ->> 'username', this ->> 'label', this ->> 'package_name', this ->> 'command_type', this ->> 'hostname', this ->> 'id');
  INSERT INTO update_logs (kind, action, actor, result, agent_id, message, metadata)
  VALUES (CASE WHEN importing THEN 'import' ELSE 'change' END,
          coalesce(act ->> 'action', TG_ARGV[0] || CASE TG_OP WHEN 'INSERT' THEN '_created' WHEN 'UPDATE' THEN '_changed' ELSE '_removed' END),
          who, 'success',
          CASE WHEN TG_ARGV[0] = 'agent' THEN (this ->> 'id')::uuid ELSE (this ->> 'agent_id')::uuid END,
          left(replace(TG_ARGV[0], '_', ' ') || ' ' || label || ': ' || array_to_string(said, ', '), 2000),
          (act - 'actor' - 'action') || jsonb_build_object('subject', TG_ARGV[0], 'subject_id', coalesce(this ->> 'id', this ->> 'command_type'),
            'old', past, 'new', new_));
  RETURN NULL;
END $$;

-- Before a change: refuses what is illegal, counts the version, says who acts, and finds the nearest deadline.
CREATE OR REPLACE FUNCTION agent_commands_guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  by_server boolean := session_user = redflag_server_role();
  changed   boolean := TG_OP = 'INSERT';
  forced    boolean := false;
  importing boolean := TG_OP = 'INSERT' AND redflag_importing();
  legal     boolean;
  base      timestamptz;
BEGIN
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
CREATE OR REPLACE FUNCTION agent_commands_record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
      'timeout_reason', CASE WHEN mute THEN 'this agent version does not report on this command type' ELSE CASE due_by WHEN 'delivery' THEN 'not_delivered' WHEN 'start' THEN 'not_started' WHEN 'idle' THEN 'no_progress' ELSE 'no_response' END END,
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

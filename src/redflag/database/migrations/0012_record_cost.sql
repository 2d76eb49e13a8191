-- What is done for every record and every change of a command, with less of the processor; what is recorded stays the same, letter
-- for letter. The two functions stand here whole, and take the place of those of 0001_record.sql and 0004_commands.sql.
-- docs/decisions/0019-where-the-time-goes.md has what was measured.

-- Every record passes update_logs_admit, which knows the kinds: a constraint is read anew for each record, and took a twentieth of its time
ALTER TABLE update_logs DROP CONSTRAINT update_logs_kind_check;

-- Admits a record. Rows that no trigger wrote are what their writer may say: the server names kind and actor (never a
-- transition), anybody else leaves a note under the name of their database role, and an import its history.
-- It is a BEFORE trigger with a side effect (the outbox) on purpose: a second trigger would cost as much as the row.
CREATE OR REPLACE FUNCTION update_logs_admit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  -- Random bits of this transaction: nowhere but in its memory, and gone with it. They begin with its number, so that none is taken over
  -- that was left in the session. Where PostgreSQL was built without OpenSSL, random bits are read from a file that is opened anew each
  -- time, which took a tenth of the time of a record
  secret text := current_setting('redflag.secret', true);
  number text := pg_current_xact_id() || ':';
BEGIN
  IF pg_trigger_depth() = 1 THEN
    IF session_user = redflag_server_role() THEN
      IF NEW.kind NOT IN ('access', 'service', 'late_result') OR NEW.actor LIKE 'db:%' THEN
        RAISE EXCEPTION 'a record of kind % by % is not the server''s to write', NEW.kind, NEW.actor USING ERRCODE = 'RF004',
          HINT = 'Transitions and changes are written by triggers, notes and imports by hand.';
      END IF;
      NEW.version := NULL;
      IF NEW.actor = '' THEN
        RAISE EXCEPTION 'a record of kind % names no actor', NEW.kind USING ERRCODE = 'RF002',
          HINT = 'Give the actor who caused it.';
      END IF;
      -- What an agent does is found by its agent: an index of its own for actors that are agents would be the largest of all
      IF NEW.agent_id IS NULL AND NEW.actor ~ '^agent:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        NEW.agent_id := substr(NEW.actor, 7)::uuid;
      END IF;
    ELSE
      NEW.kind := CASE WHEN redflag_importing() THEN 'import' ELSE 'note' END;
      NEW.actor := 'db:' || session_user;
      NEW.version := NULL;
      -- No leaf tells a JSON null from none
      NEW.params := nullif(NEW.params, 'null');
      NEW.metadata := NEW.metadata || jsonb_strip_nulls(jsonb_build_object(
        'address', host(inet_client_addr()), 'application', nullif(current_setting('application_name'), ''),
        'imported_from', CASE WHEN NEW.kind = 'import' THEN current_setting('redflag.imported_from', true) END));
    END IF;
    IF abs(extract(epoch FROM NEW.created_at - clock_timestamp())) > 5 AND NEW.created_at <> now() THEN
      RAISE EXCEPTION 'created_at is when a record is written, and the database''s to fill' USING ERRCODE = 'RF004',
        HINT = 'Leave created_at out; executed_at says when it happened.';
    END IF;
  END IF;
  -- What stands in a leaf as it is has bounds, so that every record has a leaf. Here, and not in a constraint, because a
  -- constraint of this size takes a fifth of the time of the whole record
  IF NEW.kind = 'transition' AND (NEW.command_id IS NULL OR NEW.version IS NULL)
      OR length(NEW.action) > 200 OR length(NEW.command_type) > 100 OR length(NEW.actor) > 700
      OR NEW.executed_at NOT BETWEEN '1970-01-01 00:00:00+00' AND '9999-01-01 00:00:00+00'
      OR NEW.sent_at NOT BETWEEN '1970-01-01 00:00:00+00' AND '9999-01-01 00:00:00+00'
      OR NEW.completed_at NOT BETWEEN '1970-01-01 00:00:00+00' AND '9999-01-01 00:00:00+00' THEN
    RAISE EXCEPTION 'a record of kind % is out of bounds: an identifier is missing, a word too long, or a time impossible', NEW.kind
      USING ERRCODE = 'check_violation', TABLE = 'update_logs', CONSTRAINT = 'update_logs_bounds_check',
      HINT = 'Actions have up to 200 characters, command types 100, actors 700; times lie between 1970 and 9999.';
  END IF;
  IF NEW.kind <> ALL ('{transition,late_result,note,change,access,service,import,erasure,snapshot}'::text[]) THEN
    RAISE EXCEPTION 'there are no records of kind %', NEW.kind
      USING ERRCODE = 'check_violation', TABLE = 'update_logs', CONSTRAINT = 'update_logs_kind_check';
  END IF;
  IF secret IS NULL OR NOT starts_with(secret, number) THEN
    secret := set_config('redflag.secret', number || gen_random_uuid() || gen_random_uuid(), true);
  END IF;
  -- No record's salt leads to the secret or to another record's
  NEW.salt := sha256((secret || NEW.id)::bytea);
  NEW.salts := NULL;
  INSERT INTO audit_pending (created_at, id) VALUES (NEW.created_at, NEW.id);
  RETURN NEW;
END $$;

-- After a change: its record, in the same transaction. If it cannot be written, the change does not happen.
-- An expression with a SELECT in it is a statement of its own each time, and one in an INSERT is prepared anew each time: so what is
-- rarely needed is asked for behind an IF, and what the INSERT needs is put into variables before.
CREATE OR REPLACE FUNCTION agent_commands_record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  act      jsonb := NEW.act;
  who      text := act ->> 'actor';
  report   jsonb;
  moment   timestamptz := clock_timestamp();
  origin   text := 'transition';
  outcome  text := NEW.status;
  said     text;
  details  jsonb := act - 'actor';
  params   jsonb;
  action   text;
  stdout   text;
  stderr   text;
  code     integer;
  lasted   integer;
  due      timestamptz;
  due_by   text;
  span     text;
  stuck    interval;
  mute     boolean := false;
  -- The insert of an import is the beginning of its command here: version 1, in whatever status it had
  importing boolean := TG_OP = 'INSERT' AND redflag_importing();
BEGIN
  IF TG_OP = 'INSERT' THEN
    params := NEW.params;
    IF NEW.retried_from_id IS NOT NULL THEN
      details := details || jsonb_build_object('retried_from_id', NEW.retried_from_id);
    END IF;
    IF importing THEN
      origin := 'import';
      said := act ->> 'message';
      details := details - 'message';
    END IF;
  ELSE
    -- A status is one of a few plain words
    details := details || ('{"from":"' || OLD.status || '"}')::jsonb;
    IF NEW.params IS DISTINCT FROM OLD.params THEN
      params := NEW.params;
    END IF;
  END IF;
  IF NEW.status IN ('completed', 'failed', 'cancelled') THEN
    report := NEW.result;
    said := coalesce(said, report ->> 'message');
    action := report ->> 'action';
    stdout := report ->> 'stdout';
    stderr := report ->> 'stderr';
    code := report ->> 'exit_code';
    lasted := report ->> 'duration_seconds';
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
    IF TG_OP = 'UPDATE' THEN
      due_by := OLD.deadline_kind;
      due := OLD.next_deadline_at;
    END IF;
    due_by := coalesce(due_by, CASE WHEN NEW.sent_at IS NULL THEN 'delivery' ELSE 'execution' END);
    due := coalesce(due, moment);
    span := spell_interval(CASE due_by WHEN 'delivery' THEN NEW.delivery_timeout WHEN 'start' THEN NEW.start_timeout
                                       WHEN 'idle' THEN NEW.idle_timeout ELSE NEW.execution_timeout END);
    stuck := moment - CASE WHEN due_by = 'delivery' THEN NEW.created_at ELSE coalesce(NEW.sent_at, NEW.created_at) END;
    IF due_by <> 'delivery' AND NOT redflag_agents_report_on(NEW.command_type) THEN
      mute := EXISTS (SELECT FROM agents WHERE id = NEW.agent_id AND protocol = 0);
    END IF;
    details := jsonb_build_object(
      'timeout_reason', CASE WHEN mute THEN 'this agent version does not report on this command type'
        ELSE CASE due_by WHEN 'delivery' THEN 'not_delivered' WHEN 'start' THEN 'not_started' WHEN 'idle' THEN 'no_progress' ELSE 'no_response' END END,
      'timeout_duration', span,
      'deadline_kind', due_by,
      'deadline_at', due,
      'stuck_seconds', round(extract(epoch FROM stuck), 3),
      'detected_by', who,
      'detection_method', 'by hand',
      'service_version', 'none',
      'lateness_ms', greatest(0, round(extract(epoch FROM moment - due) * 1000))
    ) || details;
    said := 'timed out after ' || spell_interval(stuck) || ': ' || CASE WHEN mute THEN 'this agent version does not report on this command type' ELSE CASE due_by
      WHEN 'delivery' THEN 'it was not delivered within ' WHEN 'start' THEN 'the agent did not start it within '
      WHEN 'idle' THEN 'the agent reported no progress for ' ELSE 'the agent did not report within ' END || span END;
  ELSIF TG_OP = 'UPDATE' AND NEW.status = OLD.status THEN
    said := CASE WHEN params IS NOT NULL THEN 'parameters changed' WHEN NEW.status = 'sent' THEN 'handed out again' END;
  ELSIF TG_OP = 'UPDATE' AND NEW.status = 'pending' THEN
    said := 'taken back, to be handed out again: the agent did not say that it received it';
  END IF;
  IF NEW.sent_at IS NOT NULL AND NEW.status IN ('timed_out', 'completed', 'failed', 'cancelled') THEN
    details := details || jsonb_build_object('sent_at', NEW.sent_at);
  END IF;
  INSERT INTO update_logs (kind, command_id, agent_id, version, command_type, action, actor, result, message, metadata, params,
                           sent_at, completed_at, stdout, stderr, exit_code, duration_seconds, executed_at, created_at)
  VALUES (origin, NEW.id, NEW.agent_id, NEW.version, NEW.command_type, action, who, outcome, said, details, params,
          NEW.sent_at, NEW.completed_at, stdout, stderr, code, lasted, moment, moment);
  RETURN NULL;
END $$;

-- The record of every change: update_logs, its partitions and its guards.
-- It refers to nothing else, because history outlives what it speaks of.

-- Replaced after every migration by the roles' own script (roles.sql), which knows the name of the server's role.
CREATE FUNCTION redflag_server_role() RETURNS name LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT NULL::name $$;

CREATE TABLE update_logs (
  id               uuid        NOT NULL DEFAULT uuidv7(),
  created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  executed_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  kind             text        NOT NULL DEFAULT 'note',
  command_id       uuid,
  agent_id         uuid,
  version          integer,
  command_type     text,
  action           text,
  actor            text        NOT NULL DEFAULT '',
  result           text        NOT NULL,
  message          text,
  metadata         jsonb       NOT NULL DEFAULT '{}',
  params           jsonb,
  sent_at          timestamptz,
  completed_at     timestamptz,
  stdout           text,
  stderr           text,
  exit_code        integer,
  duration_seconds integer,
  salt             bytea,
  salts            jsonb,
  PRIMARY KEY (id, created_at),
  -- PostgreSQL reads these anew for every record that a trigger writes: an array is read in a quarter of the time of a list
  CONSTRAINT update_logs_result_check CHECK (result = ANY
    ('{success,failed,error,pending,timed_out,sent,running,partial,cancelled,denied}'::text[])),
  CONSTRAINT update_logs_kind_check CHECK (kind = ANY ('{transition,late_result,note,change,access,service,import,erasure,snapshot}'::text[]))
) PARTITION BY RANGE (created_at);

COMMENT ON TABLE update_logs IS 'The audit trail. Rows are added, never changed or removed. kind says where a row comes from; only transitions are replayed';
COMMENT ON CONSTRAINT update_logs_result_check ON update_logs IS
  'Every result a record can have, timed_out among them. The list has its home in redflag/commands/states.py; a test holds the two together';
COMMENT ON COLUMN update_logs.executed_at IS 'When it happened, by the database''s clock';
COMMENT ON COLUMN update_logs.created_at IS 'When it was recorded, by the database''s clock';
COMMENT ON COLUMN update_logs.actor IS 'user:NAME, token:NAME, agent:ID, service:NAME@HOST or db:ROLE';
COMMENT ON COLUMN update_logs.version IS 'The command''s version after this transition: 1, 2, 3 … without a gap';
COMMENT ON COLUMN update_logs.params IS 'The command''s parameters where this transition set them, else NULL: unchanged';
COMMENT ON COLUMN update_logs.salt IS 'Root of the salts under which personal and secret fields are committed in the log; NULL once a field was erased';
COMMENT ON COLUMN update_logs.salts IS 'After an erasure: the salts of the fields that remain';

CREATE INDEX update_logs_executed ON update_logs (executed_at, id);
CREATE INDEX update_logs_agent ON update_logs (agent_id, executed_at, id);
CREATE INDEX update_logs_command ON update_logs (command_id, executed_at, id);
CREATE INDEX update_logs_type ON update_logs (command_type, executed_at, id);
CREATE INDEX update_logs_not_success ON update_logs (result, executed_at, id) WHERE result <> 'success';
CREATE INDEX update_logs_actor ON update_logs (actor, executed_at, id) WHERE actor NOT LIKE 'agent:%';
CREATE INDEX update_logs_kind ON update_logs (kind, executed_at, id) WHERE kind <> 'transition';
CREATE INDEX update_logs_action ON update_logs (action, executed_at, id) WHERE action IS NOT NULL;

-- The outbox: what has been recorded but is not in the log's tree yet.
CREATE TABLE audit_pending (
  created_at timestamptz NOT NULL,
  id         uuid        NOT NULL,
  PRIMARY KEY (created_at, id)
);
COMMENT ON TABLE audit_pending IS 'Records not yet given a position in the log, filled in the transaction of the record';

-- Whether the transaction is an import: said by a setting, and believed of members of the owner's role only, never of the
-- server's. To be asked inside SECURITY DEFINER functions, where current_user is the owner.
CREATE FUNCTION redflag_importing() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT coalesce(current_setting('redflag.importing', true), '') = 'on'
    AND session_user IS DISTINCT FROM redflag_server_role() AND pg_has_role(session_user, current_user, 'MEMBER')
$$;

-- Admits a record. Rows that no trigger wrote are what their writer may say: the server names kind and actor (never a
-- transition), anybody else leaves a note under the name of their database role, and an import its history.
-- It is a BEFORE trigger with a side effect (the outbox) on purpose: a second trigger would cost as much as the row.
CREATE FUNCTION update_logs_admit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
  NEW.salt := uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());
  NEW.salts := NULL;
  INSERT INTO audit_pending (created_at, id) VALUES (NEW.created_at, NEW.id);
  RETURN NEW;
END $$;

CREATE FUNCTION update_logs_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'update_logs is append-only: % is refused', TG_OP USING ERRCODE = 'RF003',
    HINT = 'The audit trail keeps what was written. Add a note that corrects it instead.';
END $$;

CREATE TRIGGER update_logs_admit BEFORE INSERT ON update_logs FOR EACH ROW EXECUTE FUNCTION update_logs_admit();
CREATE TRIGGER update_logs_refuse_row BEFORE UPDATE OR DELETE ON update_logs FOR EACH ROW EXECUTE FUNCTION update_logs_refuse();
CREATE TRIGGER update_logs_refuse_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON update_logs
  FOR EACH STATEMENT EXECUTE FUNCTION update_logs_refuse();
ALTER TABLE update_logs ENABLE ALWAYS TRIGGER update_logs_admit;
ALTER TABLE update_logs ENABLE ALWAYS TRIGGER update_logs_refuse_row;
ALTER TABLE update_logs ENABLE ALWAYS TRIGGER update_logs_refuse_statement;

-- A partition inherits the row triggers only: its own guard against a statement that names it must be made with it.
CREATE FUNCTION update_logs_guard_partition(part regclass) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  guard name;
BEGIN
  EXECUTE format('CREATE TRIGGER update_logs_refuse_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON %s
                  FOR EACH STATEMENT EXECUTE FUNCTION update_logs_refuse()', part);
  FOR guard IN SELECT tgname FROM pg_trigger WHERE tgrelid = part AND NOT tgisinternal AND tgenabled <> 'A' LOOP
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', part, guard);
  END LOOP;
END $$;

CREATE TABLE update_logs_default PARTITION OF update_logs DEFAULT;
SELECT update_logs_guard_partition('update_logs_default');

-- Makes the partitions of this month and the given number of months ahead. Returns how many whole months lie ahead.
-- The server may call it without any right of its own to make tables.
CREATE FUNCTION update_logs_make_partitions(months_ahead integer) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
  SET search_path FROM CURRENT SET lock_timeout = '5s' SET timezone = 'UTC' AS $$
DECLARE
  month timestamp;
  part name;
  ahead integer := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('update_logs_make_partitions', 0));
  FOR i IN 0 .. least(months_ahead, 60) LOOP
    month := date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i);
    part := 'update_logs_' || to_char(month, 'YYYY_MM');
    IF to_regclass(quote_ident(part)) IS NULL THEN
      BEGIN
        EXECUTE format('CREATE TABLE %I PARTITION OF update_logs FOR VALUES FROM (%L) TO (%L)',
          part, to_char(month, 'YYYY-MM-DD') || ' 00:00:00+00', to_char(month + interval '1 month', 'YYYY-MM-DD') || ' 00:00:00+00');
        PERFORM update_logs_guard_partition(part::regclass);
      EXCEPTION WHEN check_violation THEN
        -- Records of this month are in the default partition already, and stay there; the months ahead are made all the same
        NULL;
      END;
    END IF;
  END LOOP;
  LOOP
    month := date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead + 1);
    EXIT WHEN to_regclass(quote_ident('update_logs_' || to_char(month, 'YYYY_MM'))) IS NULL;
    ahead := ahead + 1;
  END LOOP;
  RETURN ahead;
END $$;
SELECT update_logs_make_partitions(12);

-- The record of a change in any other table that people or the service decide upon: one trigger for all of them.
-- Arguments: what such a row is called, then the audited columns; a column with a leading ! is recorded as changed
-- without its value. The server says who acts in the row's `act`; anybody else is their database role.
CREATE FUNCTION record_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
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

-- One record instead of many: the first of a key in its bucket of time is recorded, the rest are counted here.
CREATE TABLE audit_throttle (
  key    text        NOT NULL,
  bucket timestamptz NOT NULL,
  times  bigint      NOT NULL DEFAULT 1,
  detail jsonb       NOT NULL DEFAULT '{}',
  PRIMARY KEY (key, bucket)
);
COMMENT ON TABLE audit_throttle IS 'Bounds the volume of records about access: how often something happened in a minute or an hour';

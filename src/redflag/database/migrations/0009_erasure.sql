-- Erasing what is personal, and legal holds, which forbid it. An erasure is a row in audit_erasures: its triggers do
-- everything in that transaction, and the guards let through what such a row names, and nothing else.

CREATE TABLE legal_holds (
  id          uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
  name        text        NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  reason      text        NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
  since       timestamptz,
  until       timestamptz,
  agent_id    uuid,
  command_id  uuid,
  actor       text        CHECK (length(actor) BETWEEN 1 AND 700),
  created_at  timestamptz NOT NULL DEFAULT now(),
  released_at timestamptz,
  act         jsonb,
  CONSTRAINT legal_holds_period CHECK (since < until)
);
COMMENT ON TABLE legal_holds IS 'Records that are neither erased nor pruned until the hold is released: those to which everything that the hold names applies';
COMMENT ON COLUMN legal_holds.since IS 'Of when it was recorded (created_at): since ≤ created_at < until; NULL: open';
CREATE UNIQUE INDEX legal_holds_name ON legal_holds (lower(name)) WHERE released_at IS NULL;
CREATE TRIGGER legal_holds_record AFTER INSERT OR UPDATE OR DELETE ON legal_holds FOR EACH ROW
  EXECUTE FUNCTION record_change('legal_hold', 'name', 'reason', 'since', 'until', 'agent_id', 'command_id', 'actor', 'released_at');
ALTER TABLE legal_holds ENABLE ALWAYS TRIGGER legal_holds_record;

-- A hold is placed and released, once each. It is never widened, narrowed or taken out.
CREATE FUNCTION legal_holds_guard() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    NEW.created_at := now();
    NEW.released_at := NULL;
    RETURN NEW;
  ELSIF TG_OP = 'UPDATE' THEN
    IF OLD.released_at IS NULL AND NEW.released_at IS NOT NULL THEN
      NEW.released_at := now();
    END IF;
    IF to_jsonb(NEW) - '{released_at,act}'::text[] = to_jsonb(OLD) - '{released_at,act}'::text[]
        AND (OLD.released_at IS NULL OR NEW.released_at = OLD.released_at) THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION 'legal_holds keeps every hold as it was placed: % is refused', TG_OP USING ERRCODE = 'RF003',
    HINT = 'Place another hold, then release this one.';
END $$;
CREATE TRIGGER legal_holds_guard BEFORE INSERT OR UPDATE OR DELETE ON legal_holds FOR EACH ROW EXECUTE FUNCTION legal_holds_guard();
CREATE TRIGGER legal_holds_refuse BEFORE TRUNCATE ON legal_holds FOR EACH STATEMENT EXECUTE FUNCTION legal_holds_guard();
ALTER TABLE legal_holds ENABLE ALWAYS TRIGGER legal_holds_guard;
ALTER TABLE legal_holds ENABLE ALWAYS TRIGGER legal_holds_refuse;

-- The hold that covers a record, by name; NULL: none does. Its body is bound to its table when it is made, whoever calls it.
CREATE FUNCTION legal_hold_on(recorded timestamptz, agent uuid, command uuid, who text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
  RETURN (SELECT h.name FROM legal_holds h
    WHERE h.released_at IS NULL AND (h.since IS NULL OR recorded >= h.since) AND (h.until IS NULL OR recorded < h.until)
      AND (h.agent_id IS NULL OR h.agent_id = agent) AND (h.command_id IS NULL OR h.command_id = command) AND (h.actor IS NULL OR h.actor = who)
    ORDER BY h.created_at, h.id LIMIT 1);

CREATE TABLE audit_erasures (
  id          uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
  record_id   uuid        NOT NULL,
  recorded_at timestamptz NOT NULL,
  fields      text[]      NOT NULL CHECK (cardinality(fields) > 0 AND fields <@ '{actor,address,message,params,stdout,stderr,metadata}'),
  reason      text,
  command_id  uuid,
  logged_id   uuid        NOT NULL,
  logged_at   timestamptz NOT NULL,
  xid         xid8        NOT NULL,
  act         jsonb
);
COMMENT ON TABLE audit_erasures IS 'Which fields of which record were erased. A row is inserted with record_id, fields, reason and act; its triggers erase';
COMMENT ON COLUMN audit_erasures.reason IS 'Goes into the record of the erasure, and is not kept here';
COMMENT ON COLUMN audit_erasures.act IS 'Who erases; goes into the record of the erasure, and is not kept here';
COMMENT ON COLUMN audit_erasures.logged_id IS 'The record of the erasure, written at logged_at: what fsck believes, once it is in the tree';
COMMENT ON COLUMN audit_erasures.xid IS 'The transaction that erased: the only one in which the guards let it through';
CREATE INDEX audit_erasures_record ON audit_erasures (record_id);
CREATE INDEX audit_erasures_command ON audit_erasures (command_id) WHERE command_id IS NOT NULL;
CREATE INDEX audit_erasures_xid ON audit_erasures (xid);

-- Before an erasure: whether it may be, and its record. It is a BEFORE trigger with a side effect so that who asked, and why,
-- stand in the record and nowhere else.
CREATE FUNCTION audit_erasures_admit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  act     jsonb := coalesce(NEW.act, '{}');
  who     text  := act ->> 'actor';
  entry   record;
  told    record;
  logged  jsonb;
  hold    text;
  field   text;
BEGIN
  IF session_user = redflag_server_role() THEN
    IF coalesce(who, '') = '' THEN
      RAISE EXCEPTION 'an erasure of record % names no actor', NEW.record_id USING ERRCODE = 'RF002',
        HINT = 'Set act to who acts in this very request.';
    END IF;
  ELSE
    who := 'db:' || session_user;
    act := jsonb_strip_nulls(jsonb_build_object(
      'address', host(inet_client_addr()), 'application', nullif(current_setting('application_name'), '')));
  END IF;
  IF coalesce(length(NEW.reason), 0) NOT BETWEEN 1 AND 1000 THEN
    RAISE EXCEPTION 'an erasure of record % gives no reason of up to 1000 characters', NEW.record_id USING ERRCODE = 'RF006',
      HINT = 'Say on what ground it is erased. The reason stays in the log: name no person in it.';
  END IF;
  NEW.fields := ARRAY(SELECT DISTINCT one FROM unnest(NEW.fields) AS one ORDER BY one);

  -- No hold is placed between here and the end of the transaction
  LOCK TABLE legal_holds IN SHARE MODE;
  SELECT e.position, e.recorded_at, e.leaf INTO entry FROM audit_entries e WHERE e.record_id = NEW.record_id;
  IF NOT FOUND THEN
    IF EXISTS (SELECT FROM update_logs WHERE id = NEW.record_id) THEN
      RAISE EXCEPTION 'record % has no position in the log yet', NEW.record_id USING ERRCODE = 'RF006', HINT = 'Try again in two seconds.';
    END IF;
    RAISE EXCEPTION 'there is no record %', NEW.record_id USING ERRCODE = 'RF007', HINT = 'See `redflag history`.';
  END IF;
  SELECT * INTO told FROM update_logs WHERE id = NEW.record_id AND created_at = entry.recorded_at FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'record % at position % is gone', NEW.record_id, entry.position USING ERRCODE = 'RF006', HINT = 'Run `redflag audit fsck`.';
  END IF;
  hold := legal_hold_on(told.created_at, told.agent_id, told.command_id, told.actor);
  IF hold IS NOT NULL THEN
    RAISE EXCEPTION 'record % is under the legal hold %', NEW.record_id, hold USING ERRCODE = 'RF006',
      HINT = 'It can be erased when the hold has been released.';
  END IF;
  logged := convert_from(entry.leaf, 'UTF8')::jsonb -> 'commitments';
  FOREACH field IN ARRAY NEW.fields LOOP
    IF NOT logged ? field THEN
      RAISE EXCEPTION 'record % has no %', NEW.record_id, field USING ERRCODE = 'RF006',
        HINT = 'Name what it has: ' || array_to_string(ARRAY(SELECT jsonb_object_keys(logged)), ', ') || '.';
    ELSIF told.salt IS NULL AND NOT coalesce(told.salts ? field, false) THEN
      RAISE EXCEPTION '% of record % has been erased already', field, NEW.record_id USING ERRCODE = 'RF006', HINT = 'Leave it out.';
    ELSIF field = 'metadata' AND told.kind = ANY ('{erasure,snapshot}') THEN
      RAISE EXCEPTION 'record % is one of a kind whose metadata fsck needs: %', NEW.record_id, told.kind USING ERRCODE = 'RF006',
        HINT = 'Erase its actor, address or message.';
    ELSIF field = 'actor' AND told.actor NOT LIKE '%:%' THEN
      RAISE EXCEPTION 'the actor of record % is its kind alone, which the log says openly: %', NEW.record_id, told.actor USING ERRCODE = 'RF006',
        HINT = 'Leave it out.';
    END IF;
  END LOOP;
  IF told.command_id IS NOT NULL THEN
    PERFORM FROM agent_commands WHERE id = told.command_id AND next_deadline_at IS NOT NULL FOR NO KEY UPDATE;
    IF FOUND THEN
      RAISE EXCEPTION 'record % is of a command that is still live: %', NEW.record_id, told.command_id USING ERRCODE = 'RF006',
        HINT = 'End it first: `redflag commands cancel`.';
    END IF;
  END IF;

  NEW.id := uuidv7();
  NEW.recorded_at := entry.recorded_at;
  NEW.command_id := told.command_id;
  NEW.logged_id := uuidv7();
  NEW.logged_at := clock_timestamp();
  NEW.xid := pg_current_xact_id();
  INSERT INTO update_logs (id, created_at, executed_at, kind, command_id, agent_id, command_type, action, actor, result, message, metadata)
  VALUES (NEW.logged_id, NEW.logged_at, NEW.logged_at, 'erasure', told.command_id, told.agent_id, told.command_type, 'record_erased', who, 'success',
    format('erased %s of record %s at position %s: %s', array_to_string(NEW.fields, ', '), NEW.record_id, entry.position, NEW.reason),
    (act - 'actor' - 'action') || jsonb_build_object('record_id', NEW.record_id, 'position', entry.position, 'fields', NEW.fields));
  NEW.reason := NULL;
  NEW.act := NULL;
  RETURN NEW;
END $$;

-- After an erasure's row is there: the record, and what its command has of the same.
CREATE FUNCTION audit_erasures_erase() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  told record;
  c    record;
  said text[] := ARRAY(SELECT one FROM unnest(NEW.fields) AS one WHERE one = ANY ('{message,stdout,stderr,metadata}'));
BEGIN
  -- What becomes of the row is for its guard to say, update_logs_refuse
  UPDATE update_logs SET salt = NULL WHERE id = NEW.record_id AND created_at = NEW.recorded_at RETURNING kind, version INTO STRICT told;
  SELECT * INTO c FROM agent_commands WHERE id = NEW.command_id FOR NO KEY UPDATE;
  IF NOT FOUND OR told.kind <> ALL ('{transition,import,late_result}') THEN
    RETURN NULL;
  END IF;
  -- A command has the parameters of the last record that set them
  IF 'params' = ANY (NEW.fields) AND NOT EXISTS (
      SELECT FROM update_logs u WHERE u.command_id = NEW.command_id AND u.version > told.version
        AND (u.params IS NOT NULL OR EXISTS (SELECT FROM audit_erasures e WHERE e.record_id = u.id AND 'params' = ANY (e.fields)))) THEN
    c.params := '{}';
  END IF;
  IF said <> '{}' THEN
    c.progress := NULL;
  END IF;
  IF said && '{stdout,stderr}' THEN
    -- A digest tells whoever guesses the output that the guess is right. How many came late stays: it bounds them
    said := said || 'digest'::text;
    c.late_reports := array_fill('erased'::text, ARRAY[cardinality(c.late_reports)]);
  END IF;
  -- And the report and the actor of its last
  IF c.version = told.version THEN
    IF jsonb_typeof(c.result) = 'object' THEN
      c.result := c.result - said;
    END IF;
    IF 'metadata' = ANY (NEW.fields) THEN
      c.act := (SELECT jsonb_object_agg(key, value) FROM jsonb_each(c.act) WHERE key = ANY ('{actor,address,message}'));
    END IF;
    IF 'actor' = ANY (NEW.fields) AND c.act ? 'actor' THEN
      c.act := c.act || jsonb_build_object('actor', split_part(c.act ->> 'actor', ':', 1) || ':erased');
    END IF;
    c.act := c.act - ARRAY(SELECT one FROM unnest(NEW.fields) AS one WHERE one = ANY ('{address,message}'));
  END IF;
  UPDATE agent_commands SET params = c.params, progress = c.progress, late_reports = c.late_reports, result = c.result, act = c.act
  WHERE id = c.id AND (params, progress, late_reports, result, act) IS DISTINCT FROM (c.params, c.progress, c.late_reports, c.result, c.act);
  RETURN NULL;
END $$;

CREATE TRIGGER audit_erasures_admit BEFORE INSERT ON audit_erasures FOR EACH ROW EXECUTE FUNCTION audit_erasures_admit();
CREATE TRIGGER audit_erasures_erase AFTER INSERT ON audit_erasures FOR EACH ROW EXECUTE FUNCTION audit_erasures_erase();
CREATE TRIGGER audit_erasures_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_erasures FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse();
ALTER TABLE audit_erasures ENABLE ALWAYS TRIGGER audit_erasures_admit;
ALTER TABLE audit_erasures ENABLE ALWAYS TRIGGER audit_erasures_erase;
ALTER TABLE audit_erasures ENABLE ALWAYS TRIGGER audit_erasures_refuse;

-- Whether a record may be removed; none: whether any may, in this transaction. Retention (0010_retention.sql) opens this door.
CREATE FUNCTION update_logs_may_go(record uuid, recorded timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  RETURN false;
END $$;

-- The guard of the record, with a door in it: within the transaction of an erasure, a record that it names becomes what
-- it was without the named fields, whatever the statement asks for. Of the salts those of the other fields remain.
CREATE OR REPLACE FUNCTION update_logs_refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  named text[];
BEGIN
  IF TG_OP = 'UPDATE' AND pg_trigger_depth() > 1 THEN
    IF TG_LEVEL = 'STATEMENT' THEN
      IF EXISTS (SELECT FROM audit_erasures WHERE xid = pg_current_xact_id()) THEN
        RETURN NULL;
      END IF;
    ELSE
      named := ARRAY(SELECT DISTINCT unnest(fields) FROM audit_erasures
        WHERE record_id = OLD.id AND recorded_at = OLD.created_at AND xid = pg_current_xact_id());
      IF named <> '{}' THEN
        NEW := OLD;
        NEW.salt := NULL;
        NEW.salts := (
          SELECT coalesce(jsonb_object_agg(field, CASE WHEN OLD.salt IS NULL THEN OLD.salts ->> field
            ELSE encode(sha256(convert_to('redflag/salt/v1', 'UTF8') || '\x00' || OLD.salt || convert_to(field, 'UTF8')), 'hex') END), '{}')
          FROM audit_entries e, jsonb_object_keys(convert_from(e.leaf, 'UTF8')::jsonb -> 'commitments') AS field
          WHERE e.record_id = OLD.id AND field <> ALL (named) AND (OLD.salt IS NOT NULL OR OLD.salts ? field));
        IF 'actor' = ANY (named) THEN
          NEW.actor := split_part(OLD.actor, ':', 1) || ':erased';
        END IF;
        IF 'address' = ANY (named) AND jsonb_typeof(NEW.metadata) = 'object' THEN
          NEW.metadata := NEW.metadata - 'address';
        END IF;
        IF 'metadata' = ANY (named) THEN
          NEW.metadata := CASE WHEN jsonb_typeof(NEW.metadata) = 'object' AND NEW.metadata ? 'address'
            THEN jsonb_build_object('address', NEW.metadata -> 'address') ELSE '{}' END;
        END IF;
        NEW.message := CASE WHEN 'message' <> ALL (named) THEN OLD.message END;
        NEW.params := CASE WHEN 'params' <> ALL (named) THEN OLD.params END;
        NEW.stdout := CASE WHEN 'stdout' <> ALL (named) THEN OLD.stdout END;
        NEW.stderr := CASE WHEN 'stderr' <> ALL (named) THEN OLD.stderr END;
        RETURN NEW;
      END IF;
    END IF;
  ELSIF TG_OP = 'DELETE' THEN
    IF TG_LEVEL = 'STATEMENT' THEN
      IF update_logs_may_go(NULL, NULL) THEN
        RETURN NULL;
      END IF;
    ELSIF update_logs_may_go(OLD.id, OLD.created_at) THEN
      RETURN OLD;
    END IF;
  END IF;
  RAISE EXCEPTION 'update_logs is append-only: % is refused', TG_OP USING ERRCODE = 'RF003',
    HINT = 'The audit trail keeps what was written. Add a note that corrects it instead.';
END $$;

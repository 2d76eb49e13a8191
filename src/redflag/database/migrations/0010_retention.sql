-- Retention: the log loses its beginning, never anything else. Before it does, the states of all commands at that position are kept
-- and their hash is recorded (a snapshot), so that replay can begin there. The tree's tiles stay, and so does every proof.

CREATE TABLE log_retention (
  id            text        NOT NULL PRIMARY KEY DEFAULT 'log' CHECK (id = 'log'),
  keep          interval    CHECK (keep >= '30 days'),
  looked_at     timestamptz,
  claimed_by    text,
  claimed_until timestamptz,
  last_error    text,
  last_error_at timestamptz,
  act           jsonb
);
COMMENT ON TABLE log_retention IS 'One row: how long records are kept, and who prunes what is past that right now';
COMMENT ON COLUMN log_retention.keep IS 'NULL: for ever';
INSERT INTO log_retention DEFAULT VALUES;
CREATE TRIGGER log_retention_record AFTER INSERT OR UPDATE OR DELETE ON log_retention FOR EACH ROW EXECUTE FUNCTION record_change('retention', 'keep');
ALTER TABLE log_retention ENABLE ALWAYS TRIGGER log_retention_record;

ALTER TABLE audit_log ADD COLUMN pruned bigint NOT NULL DEFAULT 0 CHECK (pruned >= 0 AND pruned % 256 = 0 AND pruned <= integrated);
COMMENT ON COLUMN audit_log.pruned IS 'The minimum index of the log (C2SP tlog-tiles, "Pruning"): what stands below it has been removed, or is being removed';

CREATE TABLE audit_snapshots (
  position      bigint      NOT NULL PRIMARY KEY CHECK (position > 0 AND position % 256 = 0),
  first         bigint      NOT NULL CHECK (first >= 0 AND first < position),
  commands      bigint      NOT NULL CHECK (commands >= 0),
  states        bytea       NOT NULL CHECK (octet_length(states) = 32),
  kept          bigint      NOT NULL CHECK (kept BETWEEN 0 AND commands),
  kept_states   bytea       NOT NULL CHECK (octet_length(kept_states) = 32),
  bundle        text        NOT NULL CHECK (length(bundle) BETWEEN 1 AND 200),
  bundle_sha256 bytea       NOT NULL CHECK (octet_length(bundle_sha256) = 32),
  note          text        NOT NULL CHECK (length(note) <= 2000),
  logged_id     uuid        NOT NULL,
  logged_at     timestamptz NOT NULL,
  act           jsonb
);
COMMENT ON TABLE audit_snapshots IS 'What was pruned, step by step: positions first ≤ p < position, the bundle that holds them, and the states of the commands there';
COMMENT ON COLUMN audit_snapshots.states IS 'SHA-256 of the states of all commands at the position; redflag/audit/snapshots.py says how';
COMMENT ON COLUMN audit_snapshots.kept_states IS 'The same of those that still matter, which stay in audit_snapshot_states';
COMMENT ON COLUMN audit_snapshots.note IS 'All of this, signed by the log''s key';
COMMENT ON COLUMN audit_snapshots.logged_id IS 'The record of the snapshot, written at logged_at';
COMMENT ON COLUMN audit_snapshots.act IS 'Who prunes; goes into the record of the snapshot, and is not kept here';

CREATE TABLE audit_snapshot_states (
  snapshot     bigint      NOT NULL,
  command_id   uuid        NOT NULL,
  archived     boolean     NOT NULL,
  version      integer     NOT NULL,
  status       text        NOT NULL,
  agent_id     uuid        NOT NULL,
  command_type text        NOT NULL,
  sent_at      timestamptz,
  completed_at timestamptz,
  params_salt  bytea       NOT NULL,
  params_hash  bytea       NOT NULL,
  PRIMARY KEY (snapshot, command_id)
);
COMMENT ON TABLE audit_snapshot_states IS 'What each command was at the position of a snapshot: where replay begins';
COMMENT ON COLUMN audit_snapshot_states.archived IS 'It had ended and nothing came after that: the command goes with its records, and this row with the command';
COMMENT ON COLUMN audit_snapshot_states.params_hash IS 'SHA-256 of params_salt and the parameters as text: they themselves are in the command';

CREATE INDEX audit_snapshot_states_archived ON audit_snapshot_states (snapshot) WHERE archived;

CREATE TABLE audit_pruned (
  kind    text   NOT NULL,
  result  text   NOT NULL,
  records bigint NOT NULL,
  PRIMARY KEY (kind, result)
);
COMMENT ON TABLE audit_pruned IS 'How many records were pruned, so that totals go on';

CREATE TABLE audit_prunings (xid xid8 NOT NULL PRIMARY KEY);
COMMENT ON TABLE audit_prunings IS 'The transactions that prune right now, written by audit_prune alone; the guards let through only what the rules of pruning allow, and only in these';

-- The status that a record's result stands for: RESULTS of redflag/commands/states.py in SQL; a test holds the two together.
CREATE FUNCTION command_status_of(result text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN result IN ('success', 'partial') THEN 'completed'
    WHEN result IN ('failed', 'error') THEN 'failed'
    WHEN result IN ('pending', 'sent', 'running', 'timed_out', 'cancelled') THEN result
  END
$$;

-- Before a snapshot: whether what stands below it may be pruned; and its record.
CREATE FUNCTION audit_snapshots_admit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  act  jsonb := coalesce(NEW.act, '{}');
  who  text  := act ->> 'actor';
  log  record;
  held record;
  kept_for interval;
BEGIN
  SELECT pruned, coalesce((SELECT max(size) FROM audit_checkpoints), 0) AS signed INTO log FROM audit_log FOR UPDATE OF audit_log;
  IF NEW.position <= log.pruned OR NEW.position > log.signed OR NEW.position - log.pruned > 1048576 THEN
    RAISE EXCEPTION 'a snapshot at position % is not between what is pruned and the newest checkpoint: % and %', NEW.position, log.pruned, log.signed
      USING ERRCODE = 'RF006', HINT = 'Prune what is in a checkpoint, 1048576 records at once at the most.';
  ELSIF EXISTS (SELECT FROM audit_snapshots WHERE position > log.pruned) OR EXISTS (SELECT FROM audit_entries WHERE position < log.pruned) THEN
    RAISE EXCEPTION 'an earlier pruning is not finished' USING ERRCODE = 'RF006', HINT = 'Let it go on: `redflag audit prune`.';
  END IF;
  IF session_user = redflag_server_role() THEN
    IF coalesce(who, '') = '' THEN
      RAISE EXCEPTION 'a snapshot at position % names no actor', NEW.position USING ERRCODE = 'RF002', HINT = 'Set act to who acts in this very request.';
    END IF;
    SELECT keep INTO kept_for FROM log_retention;
    IF kept_for IS NULL OR EXISTS (SELECT FROM audit_entries
        WHERE position >= log.pruned AND position < NEW.position AND recorded_at > clock_timestamp() - kept_for) THEN
      RAISE EXCEPTION 'what stands below position % is not past its retention', NEW.position USING ERRCODE = 'RF006',
        HINT = 'See `redflag audit retention show`. The owner may prune more by hand.';
    END IF;
  ELSE
    who := 'db:' || session_user;
    act := jsonb_strip_nulls(jsonb_build_object(
      'address', host(inet_client_addr()), 'application', nullif(current_setting('application_name'), '')));
  END IF;
  LOCK TABLE legal_holds IN SHARE MODE;
  IF EXISTS (SELECT FROM legal_holds WHERE released_at IS NULL) THEN
    SELECT e.position, legal_hold_on(u.created_at, u.agent_id, u.command_id, u.actor) AS name INTO held
    FROM audit_entries e JOIN update_logs u ON u.id = e.record_id AND u.created_at = e.recorded_at
    WHERE e.position >= log.pruned AND e.position < NEW.position AND legal_hold_on(u.created_at, u.agent_id, u.command_id, u.actor) IS NOT NULL
    LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION 'position % is under the legal hold %', held.position, held.name USING ERRCODE = 'RF006',
        HINT = 'It can be pruned when the hold has been released.';
    END IF;
  END IF;

  NEW.first := log.pruned;
  NEW.logged_id := uuidv7();
  NEW.logged_at := clock_timestamp();
  SELECT count(*), count(*) FILTER (WHERE NOT archived) INTO NEW.commands, NEW.kept FROM audit_snapshot_states WHERE snapshot = NEW.position;
  INSERT INTO update_logs (id, created_at, executed_at, kind, action, actor, result, message, metadata)
  VALUES (NEW.logged_id, NEW.logged_at, NEW.logged_at, 'snapshot', 'log_snapshot', who, 'success',
    format('snapshot of %s commands at position %s; positions %s to %s are pruned, and kept in the evidence bundle %s',
      NEW.commands, NEW.position, NEW.first, NEW.position - 1, NEW.bundle),
    (act - 'actor' - 'action') || jsonb_build_object('first', NEW.first, 'position', NEW.position, 'commands', NEW.commands,
      'states', encode(NEW.states, 'hex'), 'kept', NEW.kept, 'kept_states', encode(NEW.kept_states, 'hex'),
      'bundle', NEW.bundle, 'bundle_sha256', encode(NEW.bundle_sha256, 'hex')));
  NEW.act := NULL;
  RETURN NEW;
END $$;
CREATE TRIGGER audit_snapshots_admit BEFORE INSERT ON audit_snapshots FOR EACH ROW EXECUTE FUNCTION audit_snapshots_admit();
CREATE TRIGGER audit_snapshots_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_snapshots FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse();
ALTER TABLE audit_snapshots ENABLE ALWAYS TRIGGER audit_snapshots_admit;
ALTER TABLE audit_snapshots ENABLE ALWAYS TRIGGER audit_snapshots_refuse;

-- The states of a snapshot come before it, in its transaction; none is added later or changed.
CREATE FUNCTION audit_snapshot_states_admit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF EXISTS (SELECT FROM added WHERE snapshot <= (SELECT coalesce(max(position), 0) FROM audit_snapshots)) THEN
    RAISE EXCEPTION 'a snapshot keeps the states that it was made with' USING ERRCODE = 'RF003';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER audit_snapshot_states_admit AFTER INSERT ON audit_snapshot_states REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION audit_snapshot_states_admit();
ALTER TABLE audit_snapshot_states ENABLE ALWAYS TRIGGER audit_snapshot_states_admit;

-- A state goes when a later snapshot has taken its place, or with its command.
CREATE FUNCTION audit_snapshot_states_refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.snapshot < (SELECT pruned FROM audit_log)
        OR (OLD.archived AND OLD.snapshot = (SELECT pruned FROM audit_log) AND NOT EXISTS (SELECT FROM agent_commands WHERE id = OLD.command_id)) THEN
      RETURN OLD;
    END IF;
  END IF;
  RAISE EXCEPTION 'a snapshot keeps the states that it was made with: % is refused', TG_OP USING ERRCODE = 'RF003',
    HINT = 'Replay of the log begins with them.';
END $$;
CREATE TRIGGER audit_snapshot_states_refuse BEFORE UPDATE OR DELETE ON audit_snapshot_states FOR EACH ROW EXECUTE FUNCTION audit_snapshot_states_refuse();
CREATE TRIGGER audit_snapshot_states_refuse_statement BEFORE TRUNCATE ON audit_snapshot_states FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse();
ALTER TABLE audit_snapshot_states ENABLE ALWAYS TRIGGER audit_snapshot_states_refuse;
ALTER TABLE audit_snapshot_states ENABLE ALWAYS TRIGGER audit_snapshot_states_refuse_statement;

-- The log's beginning moves on to a snapshot that is in a signed checkpoint, and never back.
CREATE FUNCTION audit_log_begins() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF NEW.pruned < OLD.pruned OR NOT EXISTS (
      SELECT FROM audit_snapshots s JOIN audit_entries e ON e.record_id = s.logged_id
      WHERE s.position = NEW.pruned AND e.position < (SELECT max(size) FROM audit_checkpoints)) THEN
    RAISE EXCEPTION 'the log does not begin at position %: no snapshot of it is in a checkpoint', NEW.pruned USING ERRCODE = 'RF003',
      HINT = 'Prune with `redflag audit prune`.';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER audit_log_begins BEFORE UPDATE ON audit_log FOR EACH ROW WHEN (OLD.pruned IS DISTINCT FROM NEW.pruned) EXECUTE FUNCTION audit_log_begins();
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_begins;

-- Positions below the log's beginning may go, one by one; all others stay.
CREATE FUNCTION audit_entries_refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP = 'DELETE' AND EXISTS (SELECT FROM audit_prunings WHERE xid = pg_current_xact_id()) THEN
    IF TG_LEVEL = 'STATEMENT' THEN
      RETURN NULL;
    ELSIF OLD.position < (SELECT pruned FROM audit_log) THEN
      RETURN OLD;
    END IF;
  END IF;
  RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'RF003',
    HINT = 'A log that is changed is found out by everybody who kept a checkpoint of it.';
END $$;
DROP TRIGGER audit_entries_refuse ON audit_entries;
CREATE TRIGGER audit_entries_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_refuse();
CREATE TRIGGER audit_entries_refuse_row BEFORE DELETE ON audit_entries FOR EACH ROW EXECUTE FUNCTION audit_entries_refuse();
ALTER TABLE audit_entries ENABLE ALWAYS TRIGGER audit_entries_refuse;
ALTER TABLE audit_entries ENABLE ALWAYS TRIGGER audit_entries_refuse_row;

-- A command goes when the snapshot at the log's beginning says that it ended before it, and it is what the snapshot says.
CREATE OR REPLACE FUNCTION agent_commands_refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP = 'DELETE' AND EXISTS (SELECT FROM audit_prunings WHERE xid = pg_current_xact_id()) THEN
    IF TG_LEVEL = 'STATEMENT' THEN
      RETURN NULL;
    ELSIF OLD.next_deadline_at IS NULL AND EXISTS (
        SELECT FROM audit_snapshot_states s JOIN audit_log l ON l.pruned = s.snapshot
        WHERE s.command_id = OLD.id AND s.archived AND s.version = OLD.version AND s.status = OLD.status) THEN
      RETURN OLD;
    END IF;
  END IF;
  RAISE EXCEPTION 'agent_commands keeps every command: % is refused', TG_OP USING ERRCODE = 'RF003',
    HINT = 'Cancel the command instead.';
END $$;

-- Of a record that is being pruned nothing is erased: its values are in the bundle already.
CREATE FUNCTION audit_erasures_too_late() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF (SELECT position FROM audit_entries WHERE record_id = NEW.record_id) < (SELECT max(position) FROM audit_snapshots) THEN
    RAISE EXCEPTION 'record % is past its retention and is being pruned', NEW.record_id USING ERRCODE = 'RF006',
      HINT = 'It is in the archived bundle; treat that as your rules on archives say.';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER audit_erasures_too_late BEFORE INSERT ON audit_erasures FOR EACH ROW EXECUTE FUNCTION audit_erasures_too_late();
ALTER TABLE audit_erasures ENABLE ALWAYS TRIGGER audit_erasures_too_late;

-- One batch of what the newest snapshot lets go: first records, in order; then the commands that went with them; then the states
-- of the snapshot before. Returns how many rows went; 0: there is nothing left to prune.
CREATE FUNCTION audit_prune(most integer) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  until bigint;
  batch record;
  held  record;
  ids   uuid[];
  gone  bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('audit_prune ' || current_schema(), 0));
  SELECT max(position) INTO until FROM audit_snapshots;
  IF until IS NULL THEN
    RETURN 0;
  END IF;
  UPDATE audit_log SET pruned = until WHERE pruned < until;
  INSERT INTO audit_prunings VALUES (pg_current_xact_id());
  LOCK TABLE legal_holds IN SHARE MODE;

  -- Rows are looked up by key, however many the planner thinks there are
  SELECT count(*) AS rows, max(position) AS last, array_agg(record_id) AS ids, array_agg(recorded_at) AS times,
    min(recorded_at) AS since, max(recorded_at) AS until INTO batch
  FROM (SELECT position, record_id, recorded_at FROM audit_entries WHERE position < until ORDER BY position LIMIT most) AS oldest;
  gone := batch.rows;
  IF gone > 0 THEN
    IF EXISTS (SELECT FROM legal_holds WHERE released_at IS NULL) THEN
      SELECT e.position, legal_hold_on(u.created_at, u.agent_id, u.command_id, u.actor) AS name INTO held
      FROM unnest(batch.ids, batch.times) AS one (id, at) JOIN update_logs u ON u.id = one.id AND u.created_at = one.at
        JOIN audit_entries e ON e.record_id = u.id
      WHERE u.created_at BETWEEN batch.since AND batch.until AND legal_hold_on(u.created_at, u.agent_id, u.command_id, u.actor) IS NOT NULL
      ORDER BY e.position LIMIT 1;
      IF FOUND THEN
        RAISE EXCEPTION 'position % is under the legal hold %', held.position, held.name USING ERRCODE = 'RF006',
          HINT = 'Pruning goes on when the hold has been released.';
      END IF;
    END IF;
    WITH deleted AS (
      DELETE FROM update_logs u USING unnest(batch.ids, batch.times) AS one (id, at)
      WHERE u.id = one.id AND u.created_at = one.at AND u.created_at BETWEEN batch.since AND batch.until RETURNING u.kind, u.result
    )
    INSERT INTO audit_pruned AS p (kind, result, records) SELECT kind, result, count(*) FROM deleted GROUP BY kind, result
    ON CONFLICT (kind, result) DO UPDATE SET records = p.records + EXCLUDED.records;
    DELETE FROM audit_entries WHERE position <= batch.last;
  ELSE
    ids := ARRAY(SELECT command_id FROM audit_snapshot_states WHERE snapshot = until AND archived LIMIT most);
    UPDATE updates SET command_id = NULL WHERE command_id = ANY (ids);
    DELETE FROM agent_commands WHERE id = ANY (ids);
    DELETE FROM audit_snapshot_states WHERE snapshot = until AND command_id = ANY (ids);
    gone := cardinality(ids);
    IF gone = 0 THEN
      DELETE FROM audit_snapshot_states s USING (SELECT snapshot, command_id FROM audit_snapshot_states WHERE snapshot < until LIMIT most) AS old
      WHERE s.snapshot = old.snapshot AND s.command_id = old.command_id;
      GET DIAGNOSTICS gone = ROW_COUNT;
    END IF;
  END IF;
  DELETE FROM audit_prunings WHERE xid = pg_current_xact_id();
  RETURN gone;
END $$;

-- The second door in the guard of the record: what stands below the log's beginning may go while audit_prune runs.
CREATE OR REPLACE FUNCTION update_logs_may_go(record uuid, recorded timestamptz) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
  SET search_path FROM CURRENT AS $$
BEGIN
  RETURN EXISTS (SELECT FROM audit_prunings WHERE xid = pg_current_xact_id())
    AND (record IS NULL OR EXISTS (SELECT FROM audit_entries e, audit_log l
      WHERE e.record_id = record AND e.recorded_at = recorded AND e.position < l.pruned));
END $$;

COMMENT ON TABLE update_logs IS 'The audit trail. Rows are added, and never changed or removed but by an erasure (audit_erasures) or by retention (audit_snapshots), both of which are in it themselves. kind says where a row comes from; only transitions are replayed';

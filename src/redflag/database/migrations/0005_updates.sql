-- What can be updated on which agent, and what was decided about it.
CREATE TABLE updates (
  id                uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
  agent_id          uuid        NOT NULL REFERENCES agents (id),
  package_type      text        NOT NULL CHECK (length(package_type) BETWEEN 1 AND 50),
  package_name      text        NOT NULL CHECK (length(package_name) BETWEEN 1 AND 500),
  description       text        NOT NULL DEFAULT '',
  current_version   text        NOT NULL DEFAULT '',
  available_version text        NOT NULL DEFAULT '',
  severity          text        NOT NULL DEFAULT 'unknown',
  cve_list          text[]      NOT NULL DEFAULT '{}',
  kb_id             text        NOT NULL DEFAULT '',
  repository_source text        NOT NULL DEFAULT '',
  size_bytes        bigint,
  metadata          jsonb       NOT NULL DEFAULT '{}',
  digest            bigint,
  status            text        NOT NULL DEFAULT 'pending',
  reason            text,
  approved_version  text,
  dependencies      text[],
  install_wanted_by text,
  command_id        uuid,
  first_seen_at     timestamptz NOT NULL DEFAULT now(),
  last_seen_at      timestamptz NOT NULL DEFAULT now(),
  status_at         timestamptz NOT NULL DEFAULT now(),
  act               jsonb,
  UNIQUE (agent_id, package_type, package_name),
  CONSTRAINT updates_severity_check CHECK (severity IN ('low', 'moderate', 'important', 'critical', 'unknown')),
  CONSTRAINT updates_status_check CHECK (status IN
    ('pending', 'dependencies', 'approved', 'rejected', 'installing', 'installed', 'unconfirmed', 'failed'))
) WITH (fillfactor = 80);
COMMENT ON COLUMN updates.digest IS 'Of all that the last scan said of it, so that what has not changed is not read again';
COMMENT ON COLUMN updates.dependencies IS 'What the last dry run said is installed with it; NULL: not examined for the version that is offered';
COMMENT ON COLUMN updates.install_wanted_by IS 'Who asked for the installation that follows the dry run; NULL: nobody, the dry run was all';
COMMENT ON COLUMN updates.command_id IS 'The command that works on it, or did last';
CREATE INDEX updates_command ON updates (command_id) WHERE command_id IS NOT NULL;
CREATE INDEX updates_package ON updates (package_name, package_type, agent_id);
CREATE INDEX updates_status ON updates (status, status_at);
CREATE TRIGGER updates_record AFTER UPDATE ON updates FOR EACH ROW
  WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.approved_version IS DISTINCT FROM NEW.approved_version)
  EXECUTE FUNCTION record_change('update', 'status', 'reason', 'approved_version');
ALTER TABLE updates ENABLE ALWAYS TRIGGER updates_record;

-- The updates' own vocabulary of moves; the server is held to it, the owner is not.
CREATE FUNCTION update_transition_is_legal(old_status text, new_status text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE old_status
    WHEN 'pending'      THEN new_status IN ('dependencies', 'approved', 'rejected', 'installing', 'installed')
    WHEN 'dependencies' THEN new_status IN ('pending', 'approved', 'rejected', 'installing', 'installed', 'failed')
    WHEN 'approved'     THEN new_status IN ('pending', 'dependencies', 'rejected', 'installing', 'installed', 'failed')
    WHEN 'rejected'     THEN new_status IN ('pending', 'approved', 'installed')
    WHEN 'installing'   THEN new_status IN ('installed', 'unconfirmed', 'failed', 'approved')
    WHEN 'unconfirmed'  THEN new_status IN ('installed', 'failed', 'pending')
    WHEN 'failed'       THEN new_status IN ('pending', 'approved', 'rejected', 'dependencies', 'installing', 'installed', 'unconfirmed')
    WHEN 'installed'    THEN new_status IN ('pending')
    ELSE false
  END
$$;
CREATE FUNCTION updates_guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF session_user = redflag_server_role() AND NOT update_transition_is_legal(OLD.status, NEW.status) THEN
    RAISE EXCEPTION 'update %: % may not become %', OLD.id, OLD.status, NEW.status USING ERRCODE = 'RF001';
  END IF;
  NEW.status_at := now();
  RETURN NEW;
END $$;
CREATE TRIGGER updates_guard BEFORE UPDATE ON updates FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION updates_guard();
ALTER TABLE updates ENABLE ALWAYS TRIGGER updates_guard;

-- What is seen for the first time is pending: a decision is a change, and has its record.
CREATE FUNCTION updates_begin() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF session_user = redflag_server_role() AND (NEW.status <> 'pending' OR NEW.approved_version IS NOT NULL) THEN
    RAISE EXCEPTION 'an update begins as pending, not as %', NEW.status USING ERRCODE = 'RF001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER updates_begin BEFORE INSERT ON updates FOR EACH ROW EXECUTE FUNCTION updates_begin();
ALTER TABLE updates ENABLE ALWAYS TRIGGER updates_begin;

-- Every version that was seen to become available, be installed, or go.
CREATE TABLE update_versions (
  id           uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
  agent_id     uuid        NOT NULL,
  package_type text        NOT NULL,
  package_name text        NOT NULL,
  version_from text        NOT NULL,
  version_to   text        NOT NULL,
  severity     text        NOT NULL DEFAULT 'unknown',
  event        text        NOT NULL CHECK (event IN ('available', 'installed', 'failed')),
  reason       text,
  command_id   uuid,
  seen_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX update_versions_package ON update_versions (agent_id, package_type, package_name, seen_at);

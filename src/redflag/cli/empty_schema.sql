-- Removes everything from the current schema but what belongs to an extension. Run by `redflag restore`, in the transaction
-- in which the backup is put in its place.
DO $$
DECLARE
  things text;
BEGIN
  SELECT string_agg(c.oid::regclass::text, ', ') INTO things FROM pg_class c
  WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'v'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e');
  IF things IS NOT NULL THEN EXECUTE 'DROP VIEW ' || things || ' CASCADE'; END IF;

  SELECT string_agg(c.oid::regclass::text, ', ') INTO things FROM pg_class c
  WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e');
  IF things IS NOT NULL THEN EXECUTE 'DROP TABLE ' || things || ' CASCADE'; END IF;

  SELECT string_agg(c.oid::regclass::text, ', ') INTO things FROM pg_class c
  WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'S'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e');
  IF things IS NOT NULL THEN EXECUTE 'DROP SEQUENCE ' || things || ' CASCADE'; END IF;

  SELECT string_agg(p.oid::regprocedure::text, ', ') INTO things FROM pg_proc p
  WHERE p.pronamespace = current_schema()::regnamespace
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e');
  IF things IS NOT NULL THEN EXECUTE 'DROP ROUTINE ' || things || ' CASCADE'; END IF;

  SELECT string_agg(t.oid::regtype::text, ', ') INTO things FROM pg_type t
  WHERE t.typnamespace = current_schema()::regnamespace AND t.typtype IN ('e', 'd', 'c') AND t.typrelid = 0
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e');
  IF things IS NOT NULL THEN EXECUTE 'DROP TYPE ' || things || ' CASCADE'; END IF;
END $$;

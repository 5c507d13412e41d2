-- Flyway runs this before the migrations, as the schema's owner. It makes the missing roles. It
-- does not change the roles that exist: a rotation may have changed their passwords, and a migration
-- may have revoked a privilege.
--
-- The connection sets cloudflow.app_user and cloudflow.verifier_* (db/roles.py).

DO $$
DECLARE
    team text;
BEGIN
    -- Flyway takes its own lock later. Without this lock, two first runs would make the same role.
    PERFORM pg_advisory_xact_lock(hashtext('cloudflow roles'));

    FOREACH team IN ARRAY ARRAY['cloudflow_reader', 'cloudflow_writer'] LOOP
        IF to_regrole(team) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', team);
        END IF;
        -- Roles belong to the server. Privileges belong to one database. If this database has
        -- default privileges for the role, an earlier run has granted everything here.
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_default_acl, aclexplode(defaclacl) AS granted
             WHERE defaclrole = to_regrole(quote_ident(current_user))
               AND defaclnamespace = 'public'::regnamespace
               AND granted.grantee = to_regrole(team)
        );
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA public TO %I', team);
        EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA public '
                       'GRANT SELECT ON TABLES TO %I', team);
        CONTINUE WHEN team = 'cloudflow_reader';
        GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO cloudflow_writer;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO cloudflow_writer;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public
            GRANT INSERT, UPDATE, DELETE ON TABLES TO cloudflow_writer;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public
            GRANT USAGE ON SEQUENCES TO cloudflow_writer;
    END LOOP;

    -- Only Flyway may write its history.
    IF has_table_privilege('cloudflow_writer', to_regclass('public.flyway_schema_history'),
                           'INSERT, UPDATE, DELETE') THEN
        REVOKE INSERT, UPDATE, DELETE ON public.flyway_schema_history FROM cloudflow_writer;
    END IF;
END
$$;

DO $$
DECLARE
    login text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('cloudflow roles'));
    FOREACH login IN ARRAY
        ARRAY[current_setting('cloudflow.app_user'), 'pgbouncer', 'pgbouncer_clone']
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = login) THEN
            EXECUTE format('CREATE ROLE %I LOGIN PASSWORD %L', login,
                           nullif(current_setting('cloudflow.verifier_' || login, true), ''));
        END IF;
        IF NOT pg_has_role(login, 'cloudflow_writer', 'MEMBER') THEN
            EXECUTE format('GRANT cloudflow_writer TO %I', login);
        END IF;
    END LOOP;
EXCEPTION WHEN OTHERS THEN
    -- PostgreSQL's own message would show the statement, which holds the verifier.
    RAISE EXCEPTION 'role "%": %', login, SQLERRM USING ERRCODE = SQLSTATE;
END
$$;

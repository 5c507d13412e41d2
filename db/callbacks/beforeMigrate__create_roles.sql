-- Flyway runs this before the migrations, as the schema's owner. It makes the roles that are
-- missing and leaves the others as they are: a password belongs to whoever rotates it, and a right
-- that a migration took from a group stays taken.
--
-- cloudflow.app_user and cloudflow.verifier_* come with the connection (db/roles.py).

DO $$
DECLARE
    team text;
BEGIN
    -- Flyway's own lock begins later, and two first runs would each make the roles.
    PERFORM pg_advisory_xact_lock(hashtext('cloudflow roles'));

    FOREACH team IN ARRAY ARRAY['cloudflow_reader', 'cloudflow_writer'] LOOP
        IF to_regrole(team) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', team);
        END IF;
        -- Roles are the server's, rights a database's: default rights tell that this one has them.
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

    -- Flyway's own record is for it alone to write.
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
    -- PostgreSQL's own message would show the statement, and in it the verifier.
    RAISE EXCEPTION 'role "%": %', login, SQLERRM USING ERRCODE = SQLSTATE;
END
$$;

-- Flyway runs this before the migrations, as the schema's owner. It makes the procedure that
-- PgBouncer calls after each transaction (db/pgbouncer.py). The procedure makes the session as if
-- new, so that nothing of one client reaches the next client of the server connection.
--
-- The procedure runs with whatever settings the client left. So every name in it has its schema,
-- and it uses no operators, which the client's search_path could replace.

DO $$
BEGIN
    -- Flyway takes its own lock later. Without this lock, two first runs would make the same schema.
    PERFORM pg_advisory_xact_lock(hashtext('cloudflow roles'));

    CREATE SCHEMA IF NOT EXISTS cloudflow;
    GRANT USAGE ON SCHEMA cloudflow TO PUBLIC;

    CREATE OR REPLACE PROCEDURE cloudflow.reset_session() LANGUAGE plpgsql AS $reset$
    DECLARE
        application pg_catalog.text := pg_catalog.current_setting('application_name');
        prepared pg_catalog.text;
    BEGIN
        -- Only statements of SQL's PREPARE. PgBouncer still needs the statements that it prepared.
        FOR prepared IN
            SELECT s.name FROM pg_catalog.pg_prepared_statement() AS s WHERE s.from_sql
        LOOP
            EXECUTE pg_catalog.format('DEALLOCATE %I', prepared);
        END LOOP;
        UNLISTEN *;
        DISCARD TEMP;
        DISCARD SEQUENCES;
        RESET SESSION AUTHORIZATION;  -- this resets the role too
        RESET ALL;
        -- PgBouncer knows which application name the session has. PostgreSQL reports a changed
        -- parameter only at the end of a query. So it does not report this name, and PgBouncer need
        -- not set it again for the next transaction.
        prepared := pg_catalog.concat(
            pg_catalog.set_config('application_name', application, false),
            pg_catalog.pg_advisory_unlock_all()
        );
    END
    $reset$;
    GRANT EXECUTE ON PROCEDURE cloudflow.reset_session() TO PUBLIC;
END
$$;

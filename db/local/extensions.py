"""Lets the schema's owner create the extensions that RDS's master user may create.

PostgreSQL lets only a superuser create an extension such as pg_stat_statements. RDS changes this
for its master user. The owner on localhost is no superuser either, so that a migration cannot do
here what it cannot do on RDS. While Flyway runs, an event trigger makes the owner a superuser for
the length of one CREATE EXTENSION, and then refuses an extension that RDS lacks.
All of it happens inside the statement's transaction: no other session sees it, and a failure
undoes it.
"""

from collections.abc import Generator
from contextlib import contextmanager

from db.extensions import EXTENSIONS
from db.local.access import DEV_DATABASE, OWNER
from db.local.postgres import Postgres

_SCHEMA = "cloudflow_localhost"  # it exists only while Flyway runs

_DROP = f"""
SET client_min_messages = warning;
DROP EVENT TRIGGER IF EXISTS {_SCHEMA}_begin;
DROP EVENT TRIGGER IF EXISTS {_SCHEMA}_end;
DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE;
"""
_CREATE = f"""
{_DROP}
BEGIN;
CREATE SCHEMA {_SCHEMA};

CREATE FUNCTION {_SCHEMA}.begin() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF session_user = '{OWNER}' THEN
        ALTER ROLE {OWNER} SUPERUSER;
    END IF;
END
$$;

CREATE FUNCTION {_SCHEMA}.end() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
BEGIN
    IF session_user <> '{OWNER}' THEN
        RETURN;
    END IF;
    ALTER ROLE {OWNER} NOSUPERUSER;
    FOR name IN
        SELECT extname FROM pg_event_trigger_ddl_commands() AS command
          JOIN pg_extension ON pg_extension.oid = command.objid
         WHERE command.classid = 'pg_extension'::regclass
           AND extname <> ALL (string_to_array('{",".join(EXTENSIONS)}', ','))
    LOOP
        RAISE EXCEPTION 'permission denied to create extension "%"', name
              USING ERRCODE = 'insufficient_privilege',
                    HINT = 'db/extensions.py lists the extensions that RDS has too.';
    END LOOP;
END
$$;

CREATE EVENT TRIGGER {_SCHEMA}_begin ON ddl_command_start WHEN TAG IN ('CREATE EXTENSION')
    EXECUTE FUNCTION {_SCHEMA}.begin();
CREATE EVENT TRIGGER {_SCHEMA}_end ON ddl_command_end WHEN TAG IN ('CREATE EXTENSION')
    EXECUTE FUNCTION {_SCHEMA}.end();
COMMIT;
"""


@contextmanager
def allowed_extensions(primary: Postgres) -> Generator[None]:
    """Inside this block, the owner may create the extensions of db/extensions.py.

    An earlier run that was killed may have left its objects. They are replaced, then removed.
    """
    primary.query(_CREATE, database=DEV_DATABASE)
    try:
        yield
    finally:
        primary.query(_DROP, database=DEV_DATABASE)

"""The schema that Flyway makes is the schema of CloudFlow's design."""

from collections.abc import Callable

import psycopg

from db import parameters
from db.local.access import DEV_DATABASE
from db.migrations import find_migrations
from tests.support.machine import Machine

_UUID = ("uuid", None, "NO", "gen_random_uuid()")
_NOW = ("timestamp without time zone", None, "YES", "now()")


def _text(length: int, nullable: str, default: str | None = None) -> tuple[object, ...]:
    return ("character varying", length, nullable, default)


# The design's CREATE TABLEs, column by column: type, length, nullability, default.
_COLUMNS = {
    "users": {
        "id": _UUID,
        "email": _text(255, "NO"),
        "password_hash": _text(255, "NO"),
        "name": _text(255, "YES"),
        "role": _text(50, "YES", "'viewer'::character varying"),
        "created_at": _NOW,
        "updated_at": _NOW,
    },
    "workflows": {
        "id": _UUID,
        "user_id": ("uuid", None, "YES", None),
        "name": _text(255, "NO"),
        "description": ("text", None, "YES", None),
        "definition": ("jsonb", None, "NO", None),
        "status": _text(50, "YES", "'draft'::character varying"),
        "created_at": _NOW,
        "updated_at": _NOW,
    },
    "executions": {
        "id": _UUID,
        "workflow_id": ("uuid", None, "YES", None),
        "status": _text(50, "NO"),
        "started_at": _NOW,
        "completed_at": ("timestamp without time zone", None, "YES", None),
        "result": ("jsonb", None, "YES", None),
        "error": ("text", None, "YES", None),
    },
}
_CONSTRAINTS = {
    ("users", "PRIMARY KEY (id)"),
    ("users", "UNIQUE (email)"),
    ("workflows", "PRIMARY KEY (id)"),
    ("workflows", "FOREIGN KEY (user_id) REFERENCES users(id)"),
    ("executions", "PRIMARY KEY (id)"),
    ("executions", "FOREIGN KEY (workflow_id) REFERENCES workflows(id)"),
}
_INDEXES = {
    "users_pkey": "UNIQUE INDEX users_pkey ON public.users USING btree (id)",
    "users_email_key": "UNIQUE INDEX users_email_key ON public.users USING btree (email)",
    "workflows_pkey": "UNIQUE INDEX workflows_pkey ON public.workflows USING btree (id)",
    "executions_pkey": "UNIQUE INDEX executions_pkey ON public.executions USING btree (id)",
    "idx_workflows_user_id": "INDEX idx_workflows_user_id ON public.workflows"
    " USING btree (user_id)",
    "idx_workflows_status": "INDEX idx_workflows_status ON public.workflows USING btree (status)",
    "idx_executions_workflow_id": "INDEX idx_executions_workflow_id ON public.executions"
    " USING btree (workflow_id)",
    "idx_executions_status": "INDEX idx_executions_status ON public.executions"
    " USING btree (status)",
}


def test_the_catalogue_equals_the_documented_schema(
    shared_machine: Machine, proven: Callable[[str], None]
) -> None:
    with psycopg.connect(shared_machine.address()) as connection:
        columns: dict[str, dict[str, tuple[object, ...]]] = {}
        for table, column, *rest in connection.execute(
            "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable,"
            " column_default FROM information_schema.columns WHERE table_schema = 'public'"
            " AND table_name <> 'flyway_schema_history' ORDER BY table_name, ordinal_position"
        ):
            columns.setdefault(table, {})[column] = tuple(rest)
        constraints = set(
            connection.execute(
                "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
                " WHERE connamespace = 'public'::regnamespace"
                " AND conrelid <> 'flyway_schema_history'::regclass"
            )
        )
        indexes = {
            name: definition.removeprefix("CREATE ")
            for name, definition in connection.execute(
                "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
                " AND tablename <> 'flyway_schema_history'"
            )
        }
    assert columns == _COLUMNS
    assert [list(table) for table in columns.values()] == [
        list(_COLUMNS[table]) for table in columns
    ], "in the documented order"
    assert constraints == _CONSTRAINTS
    assert indexes == _INDEXES
    proven(
        f"the catalogue equals the design: {sum(map(len, columns.values()))} columns, "
        f"{len(constraints)} constraints, {len(indexes)} indexes"
    )


def test_our_checksums_are_those_that_flyway_records(shared_machine: Machine) -> None:
    rows = shared_machine.servers.primary.query(
        "SELECT version, description, script, checksum FROM flyway_schema_history"
        " ORDER BY installed_rank",
        database=DEV_DATABASE,
    )
    assert rows == [
        {
            "version": migration.version,
            "description": migration.description,
            "script": migration.script,
            "checksum": str(migration.checksum),
        }
        for migration in find_migrations()
    ]


def test_both_servers_run_the_shared_table_of_parameters(
    shared_machine: Machine, proven: Callable[[str], None]
) -> None:
    expected = parameters.localhost_parameters()
    for server in (shared_machine.servers.primary, shared_machine.servers.replica):
        settings = {
            row["name"].lower(): {"on": "1", "off": "0"}.get(row["setting"], row["setting"])
            for row in server.query("SELECT name, setting FROM pg_settings")
        }
        assert {name: settings[name] for name in expected} == expected
    proven(f"primary and replica run all {len(expected)} parameters of the shared table")

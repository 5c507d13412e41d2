"""Prints the status of a development database."""

import json
from dataclasses import asdict

from db.local.access import DEV_DATABASE, DEV_READONLY_DATABASE
from db.local.schema import Schema
from db.local.status import PoolStatus, Status

_Row = tuple[str, str, str, str]


def print_json(status: Status) -> None:
    """Print everything that is known, for programs."""
    print(json.dumps(asdict(status), indent=2))


def print_status(status: Status, *, with_pools: bool = False) -> None:
    """Print the servers, the connection strings and the folder, for people."""
    rows: list[_Row] = [("part", "version", "answers at", "state")]
    rows += [(part.name, part.version, part.address, part.detail) for part in status.parts]
    if status.schema:
        version = status.schema.version or "empty"
        rows.append(("schema", version, "", _describe_migrations(status.schema)))
    print()
    _print_table(rows)
    if with_pools and status.pools:
        print()
        _print_table([("pool", "user", "clients", "servers"), *map(_build_row, status.pools)])
    here = next(part.version for part in status.parts if part.name == "pool")
    if with_pools and here:
        print(f"\n{_compare_versions(here, status.pgbouncer_version_on_aws)}")
    if status.schema and status.schema.deploy_refusal:
        print(f"\n{describe_refusal(status.schema)}")
    print()
    print(f"writer     {status.connection_strings[DEV_DATABASE]}")
    print(f"read-only  {status.connection_strings[DEV_READONLY_DATABASE]}")
    print(f"folder     {status.home}")
    print()
    if status.is_healthy and status.not_migrated_reason:
        print("the servers run, and the schema is not migrated")
    elif status.is_healthy:
        print(f"up in {status.seconds:.1f} s" if status.seconds else "healthy")
    elif not any(part.process_id for part in status.parts):
        print("stopped; start it with make up")
    else:
        print("not healthy; make up repairs what it can, and make logs shows the servers' messages")


def describe_refusal(schema: Schema) -> str:
    """Why a deploy would refuse the migration files, although Flyway applies them here."""
    return f"a deploy would refuse these migrations: {schema.deploy_refusal}"


def _compare_versions(here: str, on_aws: str) -> str:
    if here == on_aws:
        return f"PgBouncer {here} is also the version on AWS"
    return f"PgBouncer is {here} here and {on_aws} on AWS; docs/localhost.md lists what differs"


def _describe_migrations(schema: Schema) -> str:
    detail = f"{len(schema.applied)} applied, {len(schema.pending)} pending"
    if schema.failed:
        return f"{detail}, FAILED: {', '.join(schema.failed)} (see docs/migrations.md)"
    if schema.pending:
        return f"{detail}: {', '.join(schema.pending)}"
    if not schema.is_current:
        return f"{detail}; files and history differ, make migrate shows where"
    return detail


def _build_row(pool: PoolStatus) -> _Row:
    return (
        pool.database,
        pool.user,
        f"{pool.clients_active} active, {pool.clients_waiting} waiting",
        f"{pool.servers_active} active, {pool.servers_idle} idle",
    )


def _print_table(rows: list[_Row]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())

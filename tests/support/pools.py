"""A second PgBouncer before the servers of a development database, with other settings."""

import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from db.local.instance import LocalInstance
from db.local.pooler import PgBouncer
from db.local.servers import Servers
from tests.support.machine import Machine, choose_port


@contextmanager
def second_pool(
    machine: Machine,
    folder: Path,
    *,
    added: Mapping[str, str | int] | None = None,
    **changed: Any,  # noqa: ANN401
) -> Generator[Machine]:
    """Start a second PgBouncer. Its Machine has another port, and the same servers.

    `changed` and `added` are those of start_second_pool().
    """
    with start_second_pool(machine.servers, folder, added=added, **changed) as pool:
        yield replace(machine, port=pool.settings.listen_port)


@contextmanager
def start_second_pool(
    servers: Servers,
    folder: Path,
    *,
    added: Mapping[str, str | int] | None = None,
    **changed: Any,  # noqa: ANN401
) -> Generator[PgBouncer]:
    """Start a second PgBouncer, and stop it when the block ends.

    `changed` are fields of PgBouncerSettings. `added` are lines at the end of pgbouncer.ini, for
    values that PgBouncerSettings refuses: of a setting that stands twice, PgBouncer takes the last.
    """
    home = folder / f"pool-{secrets.token_hex(4)}"
    home.mkdir()
    instance = LocalInstance(home=home)
    instance.ensure_folders()
    instance.write_state(servers.pool.context.instance.read_state())
    settings = replace(
        servers.pool.settings,
        listen_port=choose_port(),
        auth_file=str(instance.auth_file),
        **changed,
    )
    pool = replace(
        servers.pool, context=replace(servers.pool.context, instance=instance), settings=settings
    )
    files = pool.render()
    lines = [f"{name} = {value}\n" for name, value in (added or {}).items()]
    files[instance.pooler_ini] += "".join(lines)
    for path, text in files.items():
        instance.write(path, text, mode=0o600)
    try:
        pool.start()
        yield pool
    finally:
        pool.stop()

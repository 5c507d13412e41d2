"""The databases of the benchmarks, in a temporary folder that is deleted afterwards."""

import io
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from db.local import lifecycle
from db.local.access import DEFAULT_PORT
from db.local.instance import LocalInstance
from db.local.ports import find_free_port
from db.local.report import CommandError, Report
from db.local.servers import stop_all

# Away from 5432, where people have servers of their own, and below the ports of clients (32768).
_PORTS_AFTER = DEFAULT_PORT + 15_000


@contextmanager
def make_folder() -> Generator[Path]:
    """A temporary folder that the servers' account may enter. Root runs servers as another user."""
    folder = Path(tempfile.mkdtemp(prefix="cloudflow-bench-"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def make_instance(folder: Path, name: str) -> Generator[LocalInstance]:
    """A development database that was never up. Its servers are stopped when the block ends."""
    instance = LocalInstance(home=folder / name)
    os.sync()  # so that this measurement does not wait for the writes of the one before
    try:
        yield instance
    finally:
        stop_all(instance)


def bring_up(instance: LocalInstance) -> float:
    """Do what `make up` does. Returns its seconds. Raises CommandError if it is not healthy."""
    port = None if instance.exists() else find_port()
    status = lifecycle.bring_up(instance, Report(io.StringIO()), port=port)
    if not status.is_healthy or status.not_migrated_reason or status.seconds is None:
        raise CommandError(f"bring_up returned an unhealthy database: {status}")
    return status.seconds


def find_port() -> int:
    """A free port for a pool."""
    return find_free_port(after=_PORTS_AFTER)

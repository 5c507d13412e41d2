"""A folder that all workers of one run share, and what only the first of them makes there."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil

from db.local.instance import LocalInstance
from db.local.servers import stop_all

# A run writes gigabytes of data folders, and has one or two of them at a time.
_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 6 * 2**30


def make_run_folder() -> Path:
    """A folder that the servers' account can enter. It is in memory if that has room."""
    parent = _MEMORY if _has_room(_MEMORY) else None
    folder = Path(tempfile.mkdtemp(prefix="cloudflow-test-", dir=parent)).resolve()
    folder.chmod(0o755)
    return folder


def _has_room(folder: Path) -> bool:
    try:
        status = os.statvfs(folder)
    except OSError:
        return False
    free_bytes = min(status.f_bavail * status.f_frsize, psutil.virtual_memory().available)
    is_executable = not status.f_flag & os.ST_NOEXEC  # PgBouncer's program is copied there
    return bool(is_executable and free_bytes > _ROOM_BYTES)


def remove_run_folder(folder: Path) -> None:
    """Remove it, after stopping what a worker that died has left running there."""
    for state in folder.glob("*/state.json"):
        stop_all(LocalInstance(home=state.parent))
    shutil.rmtree(folder)


def make_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """The first worker that needs a folder makes it. The other workers wait until it is there."""
    made, failed = folder.with_suffix(".made"), folder.with_suffix(".failed")
    with folder.with_suffix(".lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if failed.exists():
            raise AssertionError(f"another test failed with: {failed.read_text(encoding='utf-8')}")
        if not made.exists():
            try:
                make(folder)
            except BaseException as error:
                failed.write_text(f"{error!r}\n{getattr(error, 'detail', '')}", encoding="utf-8")
                raise
            made.touch()
    return folder

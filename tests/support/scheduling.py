"""Spreads the tests over the workers of pytest-xdist."""

from xdist.scheduler import LoadScopeScheduling

# The files that take longest come first, so that no worker is left alone with one at the end. The
# first files need no image, so that no worker waits on a machine that has to build the images.
_LONGEST_FIRST = (
    "test_lifecycle.py",
    "test_migrations.py",
    "test_many_clients.py",
    "test_failover.py",
    "test_deploys.py",
    "test_rotation.py",
    "test_hostile_clients.py",
    "test_rehearsal.py",
    "test_pooler_start.py",
    "test_pooler_task.py",
    "test_clients.py",
    "test_replacing.py",
    "test_habits.py",
    "test_roles.py",
    "test_pooler_metrics.py",
    "test_pooling.py",
    "test_session_reset.py",
    "test_drivers.py",
)

# Each test of these files starts servers of its own, so each may run on any worker. The tests of
# another file stay together, because they share what the first of them starts.
_INDEPENDENT = ("test_failover.py", "test_lifecycle.py", "test_deploys.py", "test_migrations.py")


def find_folder(nodeid: str) -> str:
    """The folder of tests/ that a test is in: unit, synth or integration."""
    return nodeid.split("/")[1]


def find_file(nodeid: str) -> str:
    """The file that a test is in."""
    return nodeid.partition("::")[0]


def rank(nodeid: str) -> tuple[int, int]:
    """The place of a test in the run: real servers first, the quickest tests last."""
    folders = ("integration", "synth", "unit")
    name = find_file(nodeid).rpartition("/")[2]
    place = _LONGEST_FIRST.index(name) if name in _LONGEST_FIRST else len(_LONGEST_FIRST)
    return folders.index(find_folder(nodeid)), place


class Scheduling(LoadScopeScheduling):
    """Gives each worker that is free the next file, or the next independent test."""

    def _split_scope(self, nodeid: str) -> str:
        file = find_file(nodeid)
        return nodeid if file.endswith(_INDEPENDENT) else file

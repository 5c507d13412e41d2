"""A lost replica: what its slot keeps on the primary, and how another replica takes its place."""

import os
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace

from db.local.access import REPLICATOR, SLOT
from db.local.postgres import Postgres, run_as_server
from db.local.servers import Servers
from tests.support.machine import Machine, choose_port

_REPLAY_SECONDS = 30
_SEGMENT_MIB = 16
_CAP_MIB = 8 * _SEGMENT_MIB
_NEW_SLOT = "recovery_2"


def _write_segments(primary: Postgres, count: int) -> None:
    """Fill so many files of WAL. At a checkpoint PostgreSQL removes what no slot may keep."""
    for _ in range(count):
        primary.query("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000))")
        primary.query("SELECT pg_switch_wal()")
    primary.query("CHECKPOINT")


def _read_slots(primary: Postgres) -> dict[str, str]:
    """Whether PostgreSQL still has the WAL of each slot."""
    rows = primary.query("SELECT slot_name, wal_status FROM pg_replication_slots")
    return {row["slot_name"]: row["wal_status"] for row in rows}


def _read_start(primary: Postgres) -> str:
    return primary.query("SELECT pg_postmaster_start_time() AS start")[0]["start"]


def _read_kept_mib(primary: Postgres) -> int:
    """The WAL from the oldest slot to the end."""
    (row,) = primary.query(
        "SELECT coalesce(max(pg_current_wal_lsn() - restart_lsn), 0)::bigint / 1048576 AS kept"
        " FROM pg_replication_slots WHERE wal_status <> 'lost'"
    )
    return int(row["kept"])


def _read_disk_mib(primary: Postgres) -> int:
    (row,) = primary.query("SELECT sum(size)::bigint / 1048576 AS size FROM pg_ls_waldir()")
    return int(row["size"])


def test_all_slots_together_keep_one_stream_up_to_the_limit(
    machine: Machine, proven: Callable[[str], None]
) -> None:
    primary = machine.up().primary
    os.kill(machine.running()["replica"], signal.SIGKILL)
    for number in range(4):
        primary.query(f"SELECT pg_create_physical_replication_slot('lost_{number}', true)")
    primary.query("ALTER SYSTEM SET min_wal_size = '32MB'")
    primary.query("ALTER SYSTEM SET max_wal_size = '32MB'")
    primary.query(f"ALTER SYSTEM SET max_slot_wal_keep_size = '{_CAP_MIB}MB'")
    primary.query("SELECT pg_reload_conf()")
    within = _CAP_MIB // _SEGMENT_MIB - 2
    _write_segments(primary, within)
    assert set(_read_slots(primary).values()) <= {"reserved", "extended"}
    kept = _read_kept_mib(primary)
    on_disk = _read_disk_mib(primary)
    assert kept >= (within - 1) * _SEGMENT_MIB
    assert on_disk < 2 * kept, "five slots do not keep five times the WAL"

    _write_segments(primary, 2 * within)
    assert set(_read_slots(primary).values()) == {"lost"}
    _write_segments(primary, 1)
    assert _read_disk_mib(primary) <= _CAP_MIB + 2 * _SEGMENT_MIB
    proven(
        f"five slots without a reader keep {kept} MiB of WAL together ({on_disk} MiB on disk); past"
        f" max_slot_wal_keep_size ({_CAP_MIB} MiB) all are lost, and the WAL is removed"
    )


def test_without_the_limit_a_lost_replica_fills_the_disk_of_the_primary(machine: Machine) -> None:
    primary = machine.up().primary
    os.kill(machine.running()["replica"], signal.SIGKILL)
    primary.query("ALTER SYSTEM SET max_slot_wal_keep_size = -1")
    primary.query("SELECT pg_reload_conf()")
    _write_segments(primary, 2 * _CAP_MIB // _SEGMENT_MIB)
    assert _read_disk_mib(primary) >= 2 * _CAP_MIB - _SEGMENT_MIB


@contextmanager
def _new_replica(machine: Machine, servers: Servers) -> Generator[Postgres]:
    """Another replica of the primary, with a slot of its own."""
    primary, home = servers.primary, machine.instance.home
    replica = replace(servers.replica, data=home / "recovery_2", port=choose_port())
    primary.query(f"SELECT pg_create_physical_replication_slot('{_NEW_SLOT}', true)")
    run_as_server(
        replica.context,
        "pg_basebackup",
        ["--pgdata", str(replica.data), "--no-password", "--checkpoint", "fast", "--no-sync",
         "--wal-method", "stream", "--slot", _NEW_SLOT],
        environment=primary.build_environment(user=REPLICATOR, database="replication"),
    )  # fmt: skip
    for path, text in replica.render().items():
        own = text.replace(f"primary_slot_name = '{SLOT}'", f"primary_slot_name = '{_NEW_SLOT}'")
        machine.instance.write(path, own)
    machine.instance.write(replica.data / "standby.signal", "")
    replica.start()
    try:
        yield replica
    finally:
        replica.stop()


def _wait_until_replayed(primary: Postgres, replica: Postgres) -> None:
    (row,) = primary.query("SELECT pg_current_wal_lsn() AS written")
    question = f"SELECT pg_last_wal_replay_lsn() >= '{row['written']}' AS is_replayed"
    deadline = time.monotonic() + _REPLAY_SECONDS
    while replica.query(question) != [{"is_replayed": "t"}]:
        assert time.monotonic() < deadline, "the replica does not follow"
        time.sleep(0.05)


def test_a_new_replica_takes_the_place_of_a_lost_one_and_the_primary_is_not_touched(
    machine: Machine, proven: Callable[[str], None]
) -> None:
    servers = machine.up()
    primary = servers.primary
    started = _read_start(primary)
    os.kill(machine.running()["replica"], signal.SIGKILL)
    primary.query("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    primary.query("SELECT pg_reload_conf()")
    _write_segments(primary, 4)
    assert _read_slots(primary) == {SLOT: "lost"}
    primary.query("ALTER SYSTEM RESET max_slot_wal_keep_size")
    primary.query("SELECT pg_reload_conf()")

    with _new_replica(machine, servers) as replica:
        primary.query("CREATE TABLE after_the_loss (id int)")
        _wait_until_replayed(primary, replica)
        assert replica.query("SELECT count(*) AS rows FROM after_the_loss") == [{"rows": "0"}]
        # The lost replica is deleted last. On RDS its slot goes with it.
        primary.query(f"SELECT pg_drop_replication_slot('{SLOT}')")
        _write_segments(primary, 2)
        _wait_until_replayed(primary, replica)
        assert _read_slots(primary) in ({_NEW_SLOT: "reserved"}, {_NEW_SLOT: "extended"})
    assert _read_start(primary) == started
    proven(
        "a replica under another name follows the primary while the slot of the lost one is still "
        "there, and after it is dropped; the primary was not restarted"
    )

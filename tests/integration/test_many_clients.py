"""The limits of a task on the smallest memory: as many clients as they allow, on 20 servers."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from db import pgbouncer
from db.pgbouncer import plan_client_limits
from stacks.environments import STAGING
from tests.support import containers
from tests.support.held_clients import (
    ClientFactory,
    HeldClient,
    Refused,
    allowing_descriptors,
    run_on_all,
)
from tests.support.pgbouncer_tasks import SERVER_USER, PgBouncerStarter, RunningPgBouncer

_AIM = 10_000
_STATEMENTS = 20
_LIMITS = plan_client_limits(STAGING.pooler_memory_mib)


def _read_memory_kib(pooler: RunningPgBouncer) -> int:
    """The memory of PgBouncer itself. Pages that it shares with others count in part."""
    process = Path("/proc") / str(containers.find_process(pooler.run.name))
    (kib,) = re.findall(r"^Pss:\s+(\d+) kB$", (process / "smaps_rollup").read_text("utf-8"), re.M)
    return int(kib)


def _count_servers(service: PgBouncerStarter) -> int:
    (row,) = service.secure.primary.query(
        f"SELECT count(*) AS number FROM pg_stat_activity WHERE usename = '{SERVER_USER}'"
    )
    return int(row["number"])


def _prepare(client: HeldClient) -> None:
    for number in range(_STATEMENTS):
        client.prepare(f"s{number}", f"SELECT {number} AS a_column_with_a_usual_name")


def test_all_clients_that_512_mib_allow_are_held_with_tls_on_20_servers_and_one_more_is_refused(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    assert STAGING.pooler_memory_mib == 512
    assert _LIMITS.database >= _AIM
    with allowing_descriptors(_LIMITS.database) as count:
        # Each client of this test is a descriptor of the test and one of PgBouncer.
        pooler = service.start(
            settings={"max_db_client_connections": count, "query_wait_timeout": 120},
            memory_mib=STAGING.pooler_memory_mib,
        )
        factory = ClientFactory(**pooler.address)
        before = _read_memory_kib(pooler)
        with factory.holding(count) as clients:
            at_rest = _read_memory_kib(pooler)
            with pytest.raises(Refused, match="max_db_client_connections") as refused:
                factory.connect()
            for number, client in enumerate(clients):
                client.send_query(f"SELECT {number}")
            servers = _count_servers(service)
            answers = run_on_all(clients, HeldClient.read_value)
            assert answers == [str(number) for number in range(count)]
            servers = max(servers, _count_servers(service))
            assert servers == pgbouncer.PgBouncerSettings.default_pool_size == 20
            after_queries = _read_memory_kib(pooler)
            run_on_all(clients[:1000], _prepare)
            assert pooler.run.is_running()
            # Memory that a thousand clients take for their statements, scaled to all clients.
            statements = (_read_memory_kib(pooler) - after_queries) * count // 1000
    costs = [(kib - before) / count for kib in (at_rest, after_queries, after_queries + statements)]
    assert costs[1] < pgbouncer.CLIENT_KIB
    # The figure of a thousand clients is multiplied by ten, and so is its error. It must fit into
    # the task's memory.
    assert after_queries + statements < STAGING.pooler_memory_mib * 1024
    assert pooler.run.is_running(), "the kernel kills a container that takes more than 512 MiB"
    proven(
        f"{count:,} clients with TLS were held and answered on {servers} servers in a container of "
        f"{STAGING.pooler_memory_mib} MiB; PgBouncer took "
        f"{after_queries // 1024} MiB: {costs[0]:.1f} KiB a client at rest, {costs[1]:.1f} after "
        f"a query each, {costs[2]:.1f} with {_STATEMENTS} prepared statements; one more client is "
        f"told: {refused.value}"
    )


def test_a_client_without_tls_costs_less_than_the_limits_reserve(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    with allowing_descriptors(2000) as count:
        pooler = service.start()
        before = _read_memory_kib(pooler)
        with ClientFactory(**pooler.address, is_encrypted=False).holding(count):
            cost = (_read_memory_kib(pooler) - before) / count
    assert cost < pgbouncer.CLIENT_KIB
    proven(f"a client without TLS costs {cost:.1f} KiB at rest ({count:,} clients)")

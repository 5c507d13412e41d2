"""What PgBouncer's clients see when another server takes over and its host name moves, as on RDS.

PgBouncer runs from its image, with the ini and the ports of the template. The primary and its
standby each have a host.
"""

import configparser
import copy
import math
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from db import roles, scram
from db.local.access import DEV_DATABASE, REPLICATOR, SUPERUSER
from db.local.instance import LocalInstance
from db.local.postgres import Postgres, find_postmaster
from db.local.processes import find_processes
from stacks.environments import STAGING
from stacks.settings import names
from stacks.settings.access import PORT
from tests.support import containers, hosts
from tests.support.certificates import Authority
from tests.support.containers import Image
from tests.support.hosts import Host, HostNetwork, NameServer
from tests.support.load import Count, Load, insert_user
from tests.support.machine import Machine, choose_port, copy_template
from tests.support.pgbouncer_tasks import PgBouncerStarter, RunningPgBouncer
from tests.support.synthesis import Synthesis
from tests.support.task_containers import find_container, get_environment, starting
from tests.support.tls_servers import Secure

_NAME = "writer.test"
_SERVER_USER = roles.POOLER_USERS[0]
_STEADY_SECONDS = 1.0
_BEHIND_SECONDS = 0.5
_SLACK_SECONDS = 4  # of a busy machine
_BUSY_SECONDS = 1  # a refusal may end later on a busy machine
_WRITERS = 6
_RESTART_SECONDS = 8.0
_PROGRAM_SECONDS = 20


@dataclass(frozen=True, kw_only=True)
class HostedServer:
    """A PostgreSQL server on a host of its own."""

    postgres: Postgres
    host: Host

    def start(self, **settings: str) -> None:
        instance = self.postgres.context.instance
        texts = self.postgres.render()
        settings = {"listen_addresses": "*", "port": str(PORT), "ssl": "on"} | settings
        texts[self.postgres.data / "postgresql.conf"] += "".join(
            f"{name} = '{value}'\n" for name, value in settings.items()
        )
        texts[self.postgres.data / "pg_hba.conf"] += (
            "host all all 198.18.0.0/15 scram-sha-256\n"
            f"host replication {REPLICATOR} 198.18.0.0/15 scram-sha-256\n"
        )
        for path, text in texts.items():
            instance.write(path, text, mode=0o600)
        log = str(instance.log(self.postgres.name))
        self._control("start", "--wait", "--log", log)

    def start_again(self) -> None:
        """Start it with the configuration of its first start."""
        log = str(self.postgres.context.instance.log(self.postgres.name))
        self._control("start", "--wait", "--log", log)

    def promote(self) -> None:
        """Promote it. Returns when it accepts writes."""
        self._control("promote", "--wait")

    def stop(self) -> None:
        """Shut it down. Clients get an error, and the standby gets all WAL."""
        self._control("stop", "--wait", "--mode", "fast")

    def crash(self) -> None:
        """Kill all its processes at once. The postmaster goes first, so that it can tell nobody."""
        data = self.postgres.data
        postmaster = find_postmaster(data)
        own = [process.pid for process in find_processes() if process.folder == str(data)]
        for pid in sorted(own, key=lambda pid: not postmaster or pid != postmaster.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=self.host.address,
            port=PORT,
            user=SUPERUSER,
            password=self.postgres.context.state.passwords[SUPERUSER],
            dbname=DEV_DATABASE,
            autocommit=True,
            connect_timeout=2,
        )

    def wait_until(self, question: LiteralString) -> None:
        """Repeat a query until it returns a row."""
        deadline = time.monotonic() + _PROGRAM_SECONDS
        with self.connect() as connection:
            while not connection.execute(question).fetchone():
                assert time.monotonic() < deadline, question
                time.sleep(0.02)

    def _control(self, *arguments: str) -> None:
        program = self.postgres.context.tools.postgres("pg_ctl")
        command = [program, *arguments, "--silent", "--pgdata", str(self.postgres.data)]
        subprocess.run(
            self.host.build_command(*command),
            check=True,
            timeout=_PROGRAM_SECONDS,
            stdout=subprocess.DEVNULL,
            cwd=self.postgres.data,
        )


@dataclass(frozen=True, kw_only=True)
class Site:
    """A primary, its standby, their name server, and PgBouncer in front of them."""

    network: HostNetwork
    names: NameServer
    primary: HostedServer
    standby: HostedServer
    readers: tuple[HostedServer, ...]  # open standbys; the first is `standby`
    pooler: RunningPgBouncer
    ini: str

    def read(self, setting: str) -> int:
        """Read a number from the deployed pgbouncer.ini."""
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(self.ini)
        return parser.getint("pgbouncer", setting)

    @property
    def name_seconds(self) -> int:
        """The longest time for which the old address is used after the name has moved.

        First the resolver keeps it. Then PgBouncer keeps it, even after the record has expired.
        """
        return hosts.RECORD_SECONDS + self.read("dns_max_ttl")

    @property
    def silence_seconds(self) -> int:
        """The longest time until a client learns that a server has gone silent.

        TCP gives up at its user timeout if data was not acknowledged. If the query was acknowledged
        and only the answer is missing, TCP gives up at the first keepalive probe after that time.
        """
        limit, idle = self.read("tcp_user_timeout") // 1000, self.read("tcp_keepidle")
        interval = self.read("tcp_keepintvl")
        return idle + interval * max(1, math.ceil((limit - idle) / interval))


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Builds the site of one test. Everything that it started ends with the stack."""

    template: LocalInstance
    servers_folder: Path
    image: Image
    container: dict[str, Any]
    folder: Path
    stack: ExitStack

    def build(
        self,
        *,
        is_synchronous: bool = False,
        is_standby_open: bool = False,
        readers: int = 0,
        order: str = "",
        **changed: str,
    ) -> Site:
        """A standby of RDS accepts no connection before its promotion. A replica accepts reads.

        With `readers`, the standby is the first of so many replicas behind the read-only name. With
        an `order`, the primary is the last of its hosts, and the order is added to its route.
        `changed` are settings of PgBouncer that differ from the deployed ones.
        """
        net = self.stack.enter_context(hosts.building())
        machine = self._copy_machine()
        servers = machine.servers
        primary = HostedServer(postgres=servers.primary, host=net.hosts[0])
        standby = HostedServer(postgres=servers.replica, host=net.hosts[1])
        further = [
            HostedServer(postgres=self._copy_machine().servers.replica, host=host)
            for host in net.hosts[2 : 1 + readers]
        ]
        open_standbys = [standby, *further][:readers]
        reader_hosts = {
            f"reader-{number}.test": server.host
            for number, server in enumerate(open_standbys, start=1)
        }
        authority = Authority("a test")
        own_names = {host.address: name for name, host in reader_hosts.items()}
        for server in (primary, standby, *further):
            key, certificate = authority.issue(own_names.get(server.host.address, _NAME))
            for name, text in (("server.key", key), ("server.crt", certificate)):
                server.postgres.context.instance.write(
                    server.postgres.data / name, text, mode=0o600
                )
            self.stack.callback(server.crash)
        primary.start(synchronous_standby_names="replica" if is_synchronous else "")
        source = (
            f"host={primary.host.address} port={PORT} user={REPLICATOR} "
            f"passfile=''{machine.instance.passfile}'' application_name="
        )
        standby.start(
            hot_standby="on" if is_standby_open or readers else "off",
            primary_conninfo=f"{source}replica",
        )
        for server in further:
            server.start(primary_conninfo=f"{source}further", primary_slot_name="")
        service = PgBouncerStarter(
            secure=Secure(machine=machine, authority=authority),
            image=self.image,
            container=_add_order(self.container, order) if order else self.container,
            begin=self.stack.enter_context(starting(self.folder)),
            folder=self.folder,
            server_password=_prepare(primary),
        )
        names = self.stack.enter_context(hosts.naming(primary.host, reader_hosts))
        readers_of_name = ",".join([*reader_hosts, *([_NAME] if order or not readers else [])])
        return Site(
            network=net,
            names=names,
            primary=primary,
            standby=standby,
            readers=tuple(open_standbys),
            pooler=_start_pooler(service, names, readers_of_name, changed),
            ini=service.ini,
        )

    def _copy_machine(self) -> Machine:
        home = self.servers_folder / secrets.token_hex(4)
        machine = Machine(instance=LocalInstance(home=home), port=choose_port())
        self.stack.callback(machine.instance.destroy)
        copy_template(self.template, machine)
        return machine


def _add_order(container: dict[str, Any], order: str) -> dict[str, Any]:
    changed = copy.deepcopy(container)
    _, lines = get_environment(changed)["PGBOUNCER_INI"]["Fn::Join"]
    (number,) = (n for n, line in enumerate(lines) if line.startswith("cloudflow_readonly = "))
    lines[number] += f" load_balance_hosts={order}"
    return changed


@pytest.fixture
def builder(
    template: LocalInstance,
    servers_folder: Path,
    pgbouncer_image: Image,
    synthesis: Synthesis,
    tmp_path: Path,
) -> Generator[Builder]:
    with ExitStack() as stack:
        yield Builder(
            template=template,
            servers_folder=servers_folder,
            image=pgbouncer_image,
            container=find_container(synthesis.templates[names.stack(STAGING, "Pooling")]),
            folder=tmp_path,
            stack=stack,
        )


def _prepare(primary: HostedServer) -> str:
    """Set the server user's password and return it. Waits until the standby streams."""
    password = secrets.token_hex(16)
    verifier = scram.build_verifier(password)
    primary.wait_until("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'")
    with primary.connect() as connection:
        connection.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(_SERVER_USER), verifier)
        )
    return password


def _start_pooler(
    service: PgBouncerStarter, names: NameServer, readers: str, settings: Mapping[str, str]
) -> RunningPgBouncer:
    """A task with the deployed ini."""
    resolver = service.folder / "resolv.conf"
    resolver.write_text(names.resolv_conf, encoding="ascii")
    deployed = get_environment(service.container)
    return service.start(
        settings=settings,
        mounts={resolver: "/etc/resolv.conf"},
        WRITER_HOST=_NAME,
        READER_HOSTS=readers,
        WRITER_PORT=deployed["WRITER_PORT"],
        READER_PORT=deployed["READER_PORT"],
    )


@contextmanager
def _under_load(site: Site) -> Generator[Load]:
    """Writers through PgBouncer. When the block begins, all have been served for a while."""
    load = Load(connect=lambda: site.pooler.connect(connect_timeout=30), writers=_WRITERS)
    with load.running():
        load.wait_until_served()
        time.sleep(_STEADY_SECONDS)
        assert load.failures == []
        yield load


def _count(load: Load, server: HostedServer) -> Count:
    with server.connect() as connection:
        counted = load.count(connection)
    assert counted.double == 0
    assert counted.acknowledged
    return counted


def _describe(counted: Count, load: Load) -> str:
    return (
        f"{counted.acknowledged:,} acknowledged rows, {len(counted.lost)} lost, 0 double; "
        f"{counted.failed} transactions failed, of which {counted.unknown} were committed; "
        f"longest pause of a writer {load.longest_pause_seconds:.1f} s"
    )


@contextmanager
def _pausing_on_the_console(site: Site) -> Generator[None]:
    with site.pooler.connect("pgbouncer") as console:
        console.execute("PAUSE cloudflow")
        yield
        console.execute("RESUME cloudflow")


@contextmanager
def _pausing_by_signals(site: Site) -> Generator[None]:
    containers.send(site.pooler.run.name, "USR1")
    site.primary.wait_until(
        "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename LIKE 'pgbouncer%')"
    )
    yield
    containers.send(site.pooler.run.name, "USR2")


@pytest.mark.parametrize("means", ["signals", "console"])
def test_a_planned_switchover_during_a_pause_fails_no_transaction(
    builder: Builder, means: str, proven: Callable[[str], None]
) -> None:
    # The deployed ini names no user of the console. The test of the console adds one.
    by_signals = means == "signals"
    site = builder.build(**({} if by_signals else {"admin_users": "app"}))
    pausing = _pausing_by_signals if by_signals else _pausing_on_the_console
    with _under_load(site) as load:
        with pausing(site):
            site.primary.stop()
            site.standby.promote()
            site.names.point_to(site.standby.host)
        load.wait_until_served()
    counted = _count(load, site.standby)
    assert load.failures == []
    assert counted.lost == ()
    assert counted.unknown == 0
    assert load.longest_pause_seconds < site.read("query_wait_timeout")
    proven(f"planned switchover during a pause by {means}: {_describe(counted, load)}")


def test_a_planned_switchover_by_name_alone_loses_no_acknowledged_row(
    builder: Builder, proven: Callable[[str], None]
) -> None:
    site = builder.build()
    with _under_load(site) as load:
        site.primary.stop()
        site.names.point_to(site.standby.host)
        site.standby.promote()
        moved = time.monotonic()
        served = load.wait_until_served() - moved
    counted = _count(load, site.standby)
    assert counted.lost == ()
    bound = site.name_seconds + site.read("server_login_retry")
    assert served < bound + _SLACK_SECONDS
    proven(
        f"planned switchover by name alone, as deployed: service {served:.1f} s after the "
        f"promotion (the configuration gives {bound} s); {_describe(counted, load)}"
    )


@pytest.mark.parametrize("is_synchronous", [False, True], ids=["asynchronous", "synchronous"])
def test_after_a_crash_the_standby_serves_within_two_seconds_of_its_promotion(
    builder: Builder, is_synchronous: bool, proven: Callable[[str], None]
) -> None:
    site = builder.build(is_synchronous=is_synchronous)
    with _under_load(site) as load:
        # The standby falls behind first.
        site.network.cut(site.primary.host, site.standby.host)
        time.sleep(_BEHIND_SECONDS)
        site.primary.crash()
        crashed = time.monotonic()
        site.names.point_to(site.standby.host)
        # RDS takes a minute to open its standby. The name has moved by then.
        time.sleep(site.name_seconds)
        site.standby.promote()
        promoted = time.monotonic()
        served = load.wait_until_served() - promoted
    counted = _count(load, site.standby)
    if is_synchronous:
        assert counted.lost == ()
    # Only rows that the standby had not received are lost.
    assert all(when > crashed - _BEHIND_SECONDS - _SLACK_SECONDS for when in counted.lost)
    assert served < 2 + _SLACK_SECONDS
    kind = "synchronous" if is_synchronous else "asynchronous"
    proven(
        f"crash of the primary, {kind} standby cut off {_BEHIND_SECONDS} s before: service "
        f"{served:.2f} s after the promotion; {_describe(counted, load)}"
    )


def test_a_replica_that_is_promoted_before_the_name_moves_serves_when_it_has_moved(
    builder: Builder, proven: Callable[[str], None]
) -> None:
    site = builder.build(is_standby_open=True)
    with _under_load(site) as load:
        site.primary.crash()
        time.sleep(_STEADY_SECONDS)
        site.standby.promote()
        site.names.point_to(site.standby.host)
        moved = time.monotonic()
        served = load.wait_until_served() - moved
    counted = _count(load, site.standby)
    bound = site.name_seconds + site.read("server_login_retry")
    assert served < bound + _SLACK_SECONDS
    proven(
        f"crash, promotion of a replica, and only then its name: service {served:.1f} s after it "
        f"was moved (the configuration gives {bound} s); {_describe(counted, load)}"
    )


def test_a_primary_that_vanishes_in_silence_is_noticed_within_the_bound(
    builder: Builder, proven: Callable[[str], None]
) -> None:
    site = builder.build(is_synchronous=True)
    with ThreadPoolExecutor() as pool, _under_load(site) as load:
        query = pool.submit(_wait_for_the_end_of_a_query, site)
        time.sleep(_STEADY_SECONDS)
        site.network.cut(site.primary.host)
        vanished = time.monotonic()
        with pytest.raises(psycopg.errors.ConnectionTimeout):  # no reset, no ICMP
            site.primary.connect()
        site.names.point_to(site.standby.host)
        site.standby.promote()
        served = load.wait_until_served() - vanished
        told = query.result() - vanished
    counted = _count(load, site.standby)
    assert counted.lost == ()
    assert told < site.silence_seconds + _SLACK_SECONDS
    bound = (
        site.silence_seconds
        + site.read("server_connect_timeout")
        + site.read("server_login_retry")
        + site.name_seconds
    )
    assert served < bound + _SLACK_SECONDS
    proven(
        f"the primary's packets dropped in silence: noticed {told:.1f} s later by a client that "
        f"waited for an answer (the configuration gives {site.silence_seconds} s), service "
        f"{served:.1f} s later (at most {bound} s); {_describe(counted, load)}"
    )


def _wait_for_the_end_of_a_query(site: Site) -> float:
    """The time at which the client of a long query got an error."""
    with site.pooler.connect() as connection, pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT pg_sleep(120)")
    return time.monotonic()


def _read(connection: psycopg.Connection, _: str) -> None:
    connection.execute("SELECT count(*) FROM users")


@contextmanager
def _under_reads(site: Site) -> Generator[Load]:
    """Readers through PgBouncer's read-only name. All have been served for a while."""
    load = Load(
        connect=lambda: site.pooler.connect("cloudflow_readonly", connect_timeout=30),
        write=_read,
        writers=_WRITERS,
    )
    with load.running():
        load.wait_until_served()
        time.sleep(_STEADY_SECONDS)
        assert load.failures == []
        yield load


def _describe_reads(load: Load) -> str:
    told = "; ".join(sorted({failure.told for failure in load.failures}))
    return (
        f"{load.acknowledged:,} reads answered, {len(load.failures)} failed"
        f"{f' ({told})' if told else ''}; longest pause of a reader "
        f"{load.longest_pause_seconds:.1f} s"
    )


def _count_sessions(server: HostedServer) -> int:
    with server.connect() as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [_SERVER_USER]
        ).fetchone()
    assert row
    return int(row[0])


def test_with_one_replica_the_read_only_name_is_away_while_the_replica_restarts(
    builder: Builder, proven: Callable[[str], None]
) -> None:
    site = builder.build(readers=1)
    (reader,) = site.readers
    limit = site.read("query_wait_timeout")
    with _under_reads(site) as load:
        before = _count_sessions(site.primary)
        reader.stop()
        stopped = time.monotonic()
        time.sleep(limit + _SLACK_SECONDS)
        reader.start_again()
        started = time.monotonic()
        served = load.wait_until_served() - started
    assert load.longest_pause_seconds > limit
    assert [failure for failure in load.failures if "query_wait_timeout" in failure.told]
    assert served < site.read("server_login_retry") + _SLACK_SECONDS
    assert _count_sessions(site.primary) == before, "the primary answers no read"
    proven(
        f"the one replica was down for {started - stopped:.1f} s: the read-only name serves "
        f"{served:.1f} s after its start; {_describe_reads(load)}"
    )


def test_with_two_replicas_the_read_only_name_survives_the_restart_of_each(
    builder: Builder, proven: Callable[[str], None]
) -> None:
    site = builder.build(readers=2)
    with _under_reads(site) as load:
        assert all(_count_sessions(reader) for reader in site.readers), "both share the reads"
        for reader in site.readers:
            reader.stop()
            load.wait_until_served()
            time.sleep(_RESTART_SECONDS)
            load.wait_until_served()
            reader.start_again()
            load.wait_until_served()
    assert load.longest_pause_seconds < _RESTART_SECONDS
    # A restart ends the one read that each client runs at that moment. In some runs PgBouncer's
    # login then meets the server that is down, and PgBouncer refuses clients for
    # server_login_retry. Each client tries again after retry_seconds.
    refused_seconds = site.read("server_login_retry") + _BUSY_SECONDS
    failures = _WRITERS * (1 + math.ceil(refused_seconds / load.retry_seconds))
    assert len(load.failures) <= failures * len(site.readers)
    proven(f"two replicas, each down for {_RESTART_SECONDS} s in turn: {_describe_reads(load)}")


def test_with_two_replicas_the_silent_loss_of_one_is_over_within_the_bound(
    builder: Builder, proven: Callable[[str], None]
) -> None:
    site = builder.build(readers=2)
    lost, _ = site.readers
    bound = (
        site.silence_seconds + site.read("server_connect_timeout") + site.read("server_login_retry")
    )
    with _under_reads(site) as load:
        assert all(_count_sessions(reader) for reader in site.readers)
        site.network.cut(lost.host)
        time.sleep(bound)
        load.wait_until_served()
    assert load.longest_pause_seconds < bound + _SLACK_SECONDS
    proven(
        f"the packets of one of two replicas dropped in silence: {_describe_reads(load)} (the "
        f"configuration gives at most {bound} s)"
    )


def test_an_order_of_hosts_would_leave_the_reads_on_the_primary_after_the_replica_is_back(
    builder: Builder, proven: Callable[[str], None]
) -> None:
    """The reason why the read-only name does not fall back to the primary (docs/design.md)."""
    site = builder.build(readers=1, order="disable", server_lifetime="1")
    (reader,) = site.readers
    with _under_reads(site) as load:
        assert _count_sessions(reader)
        reader.stop()
        load.wait_until_served()
        reader.start_again()
        time.sleep(_RESTART_SECONDS)
        load.wait_until_served()
        assert _count_sessions(reader) == 0
        assert _count_sessions(site.primary)
        with site.pooler.connect("cloudflow_readonly") as connection:
            insert_user(connection, "a row that the read-only name wrote")
    proven(
        f"with load_balance_hosts=disable the reads stay on the primary {_RESTART_SECONDS} s after "
        f"the replica is back, with server_lifetime = 1, and a write succeeds; "
        f"{_describe_reads(load)}"
    )

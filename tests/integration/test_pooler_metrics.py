"""The metrics of a task are those of PgBouncer's console, and no client can write a metric."""

import csv
import io
import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from db.pgbouncer import RUN_FOLDER
from db.pgbouncer_report import UNITS, Metric
from stacks.constructs.pgbouncer_metrics import CLIENTS_REFUSED_PATTERNS
from stacks.constructs.pgbouncer_task import EVENT_START
from stacks.environments import STAGING
from stacks.settings import names
from tests.support import containers
from tests.support.load import get_message
from tests.support.log_events import find_embedded_metrics, is_matching, split_events
from tests.support.pgbouncer_tasks import SERVER_USER, PgBouncerStarter, RunningPgBouncer

_PERIOD = {"METRICS_SECONDS": "1"}
_PATIENCE_SECONDS = 60


def _read_events(pooler: RunningPgBouncer) -> list[str]:
    # As bytes: read as text, a carriage return of a forged name would become the end of a line.
    return split_events(pooler.run.log.read_bytes().decode(errors="replace"), EVENT_START)


def _wait_for_report(pooler: RunningPgBouncer, *, after: int = 0) -> dict[str, Any]:
    """The newest of the reports, once there are more than `after`."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = find_embedded_metrics(_read_events(pooler))
        if len(found) > after:
            return found[-1]
        time.sleep(0.05)
    raise AssertionError(f"no report in:\n{pooler.run.output()}")


def _wait_for_next_reports(pooler: RunningPgBouncer) -> dict[str, Any]:
    """A report of a period that began after this call."""
    reports = len(find_embedded_metrics(_read_events(pooler)))
    return _wait_for_report(pooler, after=reports + 1)


def _find_reporter(pooler: RunningPgBouncer) -> Path:
    parent = str(containers.find_process(pooler.run.name))
    (child,) = (
        path.parent
        for path in Path("/proc").glob("[0-9]*/stat")
        if path.read_text("utf-8").rpartition(")")[2].split()[1] == parent
    )
    return child


def _count_refused(events: list[str]) -> dict[str, int]:
    return {
        name: sum(is_matching(pattern, event) for event in events)
        for name, pattern in CLIENTS_REFUSED_PATTERNS.items()
    }


def test_each_report_is_valid_and_has_the_figures_of_the_console_under_a_known_load(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start(settings={"idle_transaction_timeout": 60}, **_PERIOD)
    with ExitStack() as held, ThreadPoolExecutor(5) as executor:
        clients = [held.enter_context(pooler.connect(autocommit=False)) for _ in range(28)]
        for client in clients[:20]:
            client.execute("SELECT 1")  # holds a server connection
        waiting = [executor.submit(client.execute, "SELECT 1") for client in clients[20:25]]
        time.sleep(1)
        report = _wait_for_next_reports(pooler)
        for client in clients[:20]:
            client.rollback()
        for future in waiting:
            future.result()
    (directive,) = report["_aws"]["CloudWatchMetrics"]
    assert directive == {
        "Namespace": names.metrics_namespace(STAGING),
        "Dimensions": [[]],
        "Metrics": [{"Name": metric, "Unit": UNITS[metric]} for metric in Metric],
    }
    assert abs(report["_aws"]["Timestamp"] / 1000 - time.time()) < _PATIENCE_SECONDS
    assert set(report) == {"_aws", *Metric}
    assert all(type(report[metric]) is int for metric in Metric)
    counts = {metric: report[metric] for metric in Metric if metric.startswith(("Cl", "Se"))}
    assert counts == {
        Metric.CLIENTS_ACTIVE: 23,
        Metric.CLIENTS_WAITING: 5,
        Metric.SERVERS_ACTIVE: 20,
        Metric.SERVERS_IDLE: 0,
    }
    assert 1000 <= report[Metric.LONGEST_WAIT] < _PATIENCE_SECONDS * 1000
    after = _wait_for_next_reports(pooler)
    assert after[Metric.CLIENTS_WAITING] == after[Metric.SERVERS_ACTIVE] == 0
    assert after[Metric.SERVERS_IDLE] == 20
    reports = find_embedded_metrics(_read_events(pooler))
    assert sum(found[Metric.TRANSACTIONS] for found in reports) == 25
    assert sum(found[Metric.WAIT_TIME] for found in reports) >= 5000
    proven(f"a task with 20 busy, 5 waiting and 3 idle clients reported {json.dumps(counts)}")


def test_the_report_agrees_with_show_pools(service: PgBouncerStarter) -> None:
    pooler = service.start(**_PERIOD)
    with pooler.connect(), pooler.connect("cloudflow_readonly") as reader:
        reader.execute("SELECT 1")
        report = _wait_for_next_reports(pooler)
        process = containers.find_process(pooler.run.name)
        psql = service.secure.primary.context.tools.postgres("psql")
        setpriv = shutil.which("setpriv")
        assert setpriv
        finished = subprocess.run(
            [
                setpriv, "--reuid=6432", "--regid=6432", "--clear-groups", str(psql), "--csv",
                f"--host=/proc/{process}/root{RUN_FOLDER}", f"--port={pooler.port}",
                "--username=pgbouncer", "--command=SHOW POOLS", "pgbouncer",
            ],
            capture_output=True,
            text=True,
            check=True,
        )  # fmt: skip
    found = csv.DictReader(io.StringIO(finished.stdout))
    rows = [row for row in found if row["database"] != "pgbouncer"]
    for metric, column in {
        Metric.CLIENTS_ACTIVE: "cl_active",
        Metric.CLIENTS_WAITING: "cl_waiting",
        Metric.SERVERS_ACTIVE: "sv_active",
    }.items():
        assert report[metric] == sum(int(row[column]) for row in rows), column
    assert report[Metric.CLIENTS_ACTIVE] == 2


def test_refused_clients_are_counted_by_each_filter(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start(
        settings={"max_db_client_connections": 101, "max_client_conn": 103, "query_wait_timeout": 1}
    )
    with ExitStack() as held:
        clients = [held.enter_context(pooler.connect(autocommit=False)) for _ in range(101)]
        with pytest.raises(psycopg.OperationalError, match="max_db_client_connections"):
            pooler.connect(sslmode="require")
        for client in clients[:20]:
            client.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="query_wait_timeout"):
            clients[20].execute("SELECT 1")
        # The process that reports metrics may be a client of the console at this moment.
        with pytest.raises(psycopg.OperationalError, match="max_client_conn"):
            for _ in range(4):
                connection = pooler.connect("cloudflow_readonly", sslmode="require")
                held.enter_context(connection)
    events = _read_events(pooler)
    expected = dict.fromkeys(("QueryWaitTimeout", "MaxClientConn", "MaxDbClientConnections"), 1)
    assert {name: count for name, count in _count_refused(events).items() if count} == expected
    proven(f"each of {len(expected)} refusals is counted once, by its own metric filter")


def _connect_until_counted(pooler: RunningPgBouncer, name: str, database: str = "cloudflow") -> str:
    """Connect until the filter counts a refused client. Returns what the last client was told."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    told = ""
    while not _count_refused(_read_events(pooler))[name]:
        assert time.monotonic() < deadline, pooler.run.output()
        try:
            with pooler.connect(database, connect_timeout=20) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            told = get_message(error) or str(error)
        time.sleep(0.2)
    return told


def test_a_client_whose_server_login_fails_is_counted(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start()
    service.secure.primary.query(f"ALTER ROLE {SERVER_USER} PASSWORD 'another one'")
    told = _connect_until_counted(pooler, "ServerLoginFailed")
    proven(f"a failed server login is counted, and a client is told: {told}")


def test_a_client_that_gets_the_cached_error_of_a_server_is_counted(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start(
        settings={"server_lifetime": 1, "server_idle_timeout": 1, "server_login_retry": 15}
    )
    with pooler.connect() as connection:
        connection.execute("SELECT 1")
    service.secure.primary.query(f"ALTER ROLE {SERVER_USER} PASSWORD 'another one'")
    told = _connect_until_counted(pooler, "ServerLoginFailing")
    proven(f"a client is counted that is told: {told}")


def test_a_client_of_a_task_that_never_reached_its_server_is_counted(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start(settings={"client_login_timeout": 3}, READER_PORT="1")
    told = _connect_until_counted(pooler, "ServerDown", "cloudflow_readonly")
    proven(f"a client is counted that is told: {told}")


_FORGED_METRIC = '{"_aws":{"Timestamp":1,"CloudWatchMetrics":[]},"ClientsActive":9}'
_REFUSALS = (
    "pooler error: query_wait_timeout",
    "pooler error: no more connections allowed (max_client_conn)",
    "pooler error: client connections exceeded (max_db_client_connections)",
    "pooler error: client_login_timeout (server down)",
    "pooler error: server login has been failing, cached error: x",
    "server login failed: x",
)
_FORGED_NAMES = [
    f"mallory\n{_FORGED_METRIC}",
    f"mallory\r{_FORGED_METRIC}",
    _FORGED_METRIC,
    *_REFUSALS,
    *(f"x {words}" for words in _REFUSALS),
    *(f'x {words} "' for words in _REFUSALS),
    *(f"cloudflow/app@10.0.0.1:1 {words}" for words in _REFUSALS),
    "x [",
    "mallory\n2026-11-25 19:18:42.239 UTC [1] WARNING C-0x1: a/b@c:1 pooler error: "
    "query_wait_timeout",
    "mallory\nmetrics: all is well",
]


def test_the_name_of_a_user_or_a_database_cannot_write_into_a_metric(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start(**_PERIOD)
    for name in _FORGED_NAMES:
        for changed in ({"user": name}, {"dbname": name}, {"application_name": name}):
            for mode in ("disable", "require"):
                try:
                    pooler.connect(sslmode=mode, connect_timeout=10, **changed).close()
                except psycopg.OperationalError:
                    continue
    _wait_for_next_reports(pooler)
    output = pooler.run.output()
    assert _FORGED_METRIC in output, "it is in the log, but not as an event"
    events = _read_events(pooler)
    assert not any(_count_refused(events).values())
    for report in find_embedded_metrics(events):
        assert set(report) == {"_aws", *Metric}
        assert report["_aws"]["Timestamp"] > 1
    proven(f"{len(_FORGED_NAMES)} forged names as user, database and application write no metric")


def test_without_the_reporter_pgbouncer_serves_and_stops_as_before(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start(**_PERIOD)
    _wait_for_report(pooler)
    reporter = _find_reporter(pooler)
    environment = (reporter / "environ").read_text("utf-8")
    assert "METRICS_NAMESPACE=" in environment
    for secret in (pooler.password, service.server_password, "PASSWORD"):
        assert secret not in environment
    subprocess.run(["kill", "-KILL", reporter.name], check=True)
    time.sleep(2)
    reports = len(find_embedded_metrics(_read_events(pooler)))
    with pooler.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    time.sleep(2)
    assert len(find_embedded_metrics(_read_events(pooler))) == reports
    containers.send(pooler.run.name, signal.SIGINT.name)
    assert pooler.run.wait() == 0
    proven("without the process that reports metrics, PgBouncer serves clients and stops with 0")


def test_the_reporter_does_not_delay_the_end_of_a_task(service: PgBouncerStarter) -> None:
    pooler = service.start(**_PERIOD)
    _wait_for_report(pooler)
    process = containers.find_process(pooler.run.name)
    name = Path(f"/proc/{process}/comm").read_text("utf-8").strip()
    assert name == "pgbouncer", "signals reach PgBouncer, and the exit status is its own"
    containers.send(pooler.run.name, signal.SIGINT.name)
    assert pooler.run.wait() == 0


def test_a_console_that_does_not_answer_is_in_the_log(service: PgBouncerStarter) -> None:
    pooler = service.start(settings={"unix_socket_dir": ""}, **_PERIOD)
    line = pooler.run.wait_for(r"^metrics: ")
    assert re.search(r"no answer \(FileNotFoundError: .*/run/pgbouncer\)", line)
    assert not find_embedded_metrics(_read_events(pooler))
    pooler.connect().close()

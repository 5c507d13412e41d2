"""The cost of resetting the session after each transaction, as throughput through PgBouncer."""

import re
import subprocess
from contextlib import ExitStack

from db.local.access import DEV_DATABASE, DEV_USER
from db.local.client import Target, build_client_environment
from db.local.pooler import PgBouncer
from db.local.report import CommandError, Report
from db.local.servers import Servers
from db.pgbouncer import PgBouncerSettings
from tests.bench.figures import Figure, Table, compare
from tests.support.pools import start_second_pool

_CLIENTS = 20
_THREADS = 2
_ROUNDS = 9
_SECONDS = 2  # of each way in each round

# The emptiest query there is: no reset can cost less.
_FLOOR = ";"
_LISTED = "RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; SELECT pg_advisory_unlock_all()"
_PREPARED = f"{PgBouncerSettings.max_prepared_statements} prepared statements"
_SCRIPTS = {
    "SELECT 1": "SELECT 1;\n",
    # As many as PgBouncer keeps on a server connection. The reset has to look at each of them.
    _PREPARED: "".join(
        f"SELECT {number};\n" for number in range(PgBouncerSettings.max_prepared_statements)
    ),
    "five statements": """\
BEGIN;
INSERT INTO workflows (name, definition) VALUES ('bench', '{}');
SELECT id, name FROM users WHERE email = 'nobody';
SELECT id, name FROM workflows WHERE user_id = '00000000-0000-0000-0000-000000000000';
UPDATE users SET name = 'bench' WHERE email = 'nobody';
SELECT id FROM executions WHERE workflow_id = '00000000-0000-0000-0000-000000000000';
COMMIT;
""",
}


def measure(servers: Servers, report: Report) -> Table:
    """Throughput against no reset, and against the emptiest reset. All ways take turns."""
    folder = servers.primary.context.instance.home
    figures: list[Figure] = []
    with ExitStack() as stack:
        ways = {
            "no reset": stack.enter_context(
                start_second_pool(servers, folder, is_session_reset=False)
            ),
            "ours": stack.enter_context(start_second_pool(servers, folder)),
        } | {
            name: stack.enter_context(
                start_second_pool(servers, folder, added={"server_reset_query": query})
            )
            for name, query in {"floor": _FLOOR, "list": _LISTED}.items()
        }
        for name, script in _SCRIPTS.items():
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for number in range(1, _ROUNDS + 1):
                with report.step(f"reset, {name}, round {number} of {_ROUNDS}"):
                    for way, pool in ways.items():
                        rates[way].append(
                            _measure_rate(pool, script, is_prepared=name == _PREPARED)
                        )
            figures += _compare(name, rates)
    return Table(
        title="SESSION RESET", reference_name="reference", ours_name="ours", figures=figures
    )


def _compare(name: str, rates: dict[str, list[float]]) -> list[Figure]:
    meanings = {
        "no reset": "the reference has no reset",
        "floor": "the reference resets with an empty query: no reset can cost less",
        "list": "the reference resets with RESET ALL in a plain list, without a procedure",
    }
    return [
        compare(
            f"{name}, against {way}",
            "/s",
            reference=rates[way],
            ours=rates["ours"],
            meaning=f"{_CLIENTS} clients, runs of the script a second; {meaning}",
        )
        for way, meaning in meanings.items()
    ]


def _measure_rate(pool: PgBouncer, script: str, *, is_prepared: bool) -> float:
    """Runs of the script a second. Raises CommandError with pgbench's words.

    Clients that share a thread cannot prepare statements: pgbench would wait for one client's
    answer while PgBouncer serves another.
    """
    finished = subprocess.run(
        [
            pool.context.tools.postgres("pgbench"), "--no-vacuum", "--file", "/dev/stdin",
            "--client", str(_CLIENTS), "--time", str(_SECONDS),
            "--jobs", str(_CLIENTS if is_prepared else _THREADS),
            "--protocol", "prepared" if is_prepared else "simple",
        ],
        input=script,
        env=build_client_environment(
            pool.context.instance,
            Target(port=pool.settings.listen_port, user=DEV_USER, database=DEV_DATABASE),
        ),
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    found = re.search(r"tps = ([\d.]+)", finished.stdout)
    if finished.returncode or not found:
        raise CommandError("pgbench failed", detail=finished.stderr)
    return float(found[1])

"""Reports PgBouncer's metrics: the process beside PgBouncer in each task.

Every few seconds it asks PgBouncer's console (https://www.pgbouncer.org/usage.html#admin-console).
Once a minute it prints one line in CloudWatch's embedded metric format. CloudWatch makes metrics of
such a line in a log
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).

A line holds fixed names and numbers only. No name of a user or a database is in it.
"""

import json
import os
import struct
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from db.pgbouncer import RUN_FOLDER
from db.pgbouncer_client import CONSOLE, Row, SocketClient

# A console that does not answer for this time is a failure, and the next question is asked anew.
_ANSWER_SECONDS = 5
_QUESTIONS_A_REPORT = 12  # with a report each minute, PgBouncer is asked every 5 s


class Metric(StrEnum):
    """The names in CloudWatch. Each value is for one task, so the values of all tasks add up."""

    # Peaks of the questions since the last report.
    CLIENTS_ACTIVE = "ClientsActive"  # connected, and not waiting for a server connection
    CLIENTS_WAITING = "ClientsWaiting"
    LONGEST_WAIT = "LongestWait"  # of the clients that wait now
    SERVERS_ACTIVE = "ServersActive"
    SERVERS_IDLE = "ServersIdle"
    # Sums since the last report.
    TRANSACTIONS = "Transactions"
    WAIT_TIME = "WaitTime"  # of all clients together


UNITS: dict[Metric, str] = {metric: "Count" for metric in Metric} | {
    Metric.LONGEST_WAIT: "Milliseconds",
    Metric.WAIT_TIME: "Milliseconds",
}
_SUMS = (Metric.TRANSACTIONS, Metric.WAIT_TIME)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One answer of PgBouncer. The sums count from the start of PgBouncer."""

    values: Mapping[Metric, int]


def build_sample(pools: Iterable[Row], stats: Iterable[Row]) -> Sample:
    """The sums of all rows of SHOW POOLS and SHOW STATS, without those of the console itself."""
    pools = [row for row in pools if row["database"] != CONSOLE]
    stats = [row for row in stats if row["database"] != CONSOLE]

    def add(rows: list[Row], *columns: str) -> int:
        return sum(int(row[column]) for row in rows for column in columns)

    waits = [int(row["maxwait"]) * 1000 + int(row["maxwait_us"]) // 1000 for row in pools]
    return Sample(
        values={
            Metric.CLIENTS_ACTIVE: add(pools, "cl_active"),
            Metric.CLIENTS_WAITING: add(pools, "cl_waiting"),
            Metric.LONGEST_WAIT: max(waits, default=0),
            Metric.SERVERS_ACTIVE: add(pools, "sv_active"),
            Metric.SERVERS_IDLE: add(pools, "sv_idle", "sv_used", "sv_tested"),
            Metric.TRANSACTIONS: add(stats, "total_xact_count"),
            Metric.WAIT_TIME: add(stats, "total_wait_time") // 1000,
        }
    )


def combine(before: Sample, samples: list[Sample]) -> dict[Metric, int]:
    """The values of one report: the peak of each count, and the growth of each sum."""
    values = {metric: max(sample.values[metric] for sample in samples) for metric in Metric}
    for metric in _SUMS:
        values[metric] = samples[-1].values[metric] - before.values[metric]
    return values


def render_line(values: Mapping[Metric, int], namespace: str, *, now_seconds: float) -> str:
    """One log line in the embedded metric format."""
    line = {
        "_aws": {
            "Timestamp": int(now_seconds * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": namespace,
                    "Dimensions": [[]],
                    "Metrics": [{"Name": metric, "Unit": UNITS[metric]} for metric in Metric],
                }
            ],
        },
        **{metric: values[metric] for metric in Metric},
    }
    return json.dumps(line)


class Sampler:
    """Asks PgBouncer again and again, over one connection."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._console: SocketClient | None = None

    def read(self) -> Sample:
        """One answer. Raises OSError or ValueError. The next call then logs in again."""
        try:
            if self._console is None:
                self._console = SocketClient(self._folder, answer_seconds=_ANSWER_SECONDS)
            return build_sample(
                self._console.query("SHOW POOLS"), self._console.query("SHOW STATS")
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._console is not None:
            self._console.close()
        self._console = None


def report(folder: Path, namespace: str, *, period_seconds: float) -> Iterator[str]:
    """The lines to print, one each period. It sleeps between them and never ends.

    A failure is a line too. It begins with "metrics: ", and that period has no report. An alarm
    notices missing reports (docs/runbook.md#pooler-metrics).
    """
    sampler = Sampler(folder)
    before = Sample(values=dict.fromkeys(Metric, 0))
    began = time.monotonic()
    while True:
        samples: list[Sample] = []
        failure = ""
        for number in range(1, _QUESTIONS_A_REPORT + 1):
            pause = began + number * period_seconds / _QUESTIONS_A_REPORT - time.monotonic()
            time.sleep(max(pause, 0))
            try:
                samples.append(sampler.read())
            except (OSError, ValueError, LookupError, struct.error) as error:
                failure = f"{type(error).__name__}: {error}"
        began = max(began + period_seconds, time.monotonic() - period_seconds)
        if samples:
            yield render_line(combine(before, samples), namespace, now_seconds=time.time())
            before = samples[-1]
        else:
            yield f"metrics: PgBouncer's console gave no answer ({failure})"


def main() -> None:
    """Print reports until the container ends.

    METRICS_NAMESPACE is the namespace in CloudWatch, METRICS_SECONDS the time between two reports.
    """
    lines = report(
        Path(RUN_FOLDER),
        os.environ["METRICS_NAMESPACE"],
        period_seconds=float(os.environ["METRICS_SECONDS"]),
    )
    for line in lines:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

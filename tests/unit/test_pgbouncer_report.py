"""The reports of PgBouncer's metrics: what a line holds, and what happens without an answer."""

import json
from pathlib import Path

from db.pgbouncer_report import UNITS, Metric, Sample, build_sample, combine, render_line, report

_POOL = {
    "cl_active": "3", "cl_waiting": "2", "sv_active": "1", "sv_idle": "4", "sv_used": "5",
    "sv_tested": "6", "maxwait": "1", "maxwait_us": "500999",
}  # fmt: skip
_POOLS = [
    _POOL | {"database": "cloudflow"},
    _POOL | {"database": "cloudflow_readonly", "maxwait": "0"},
    _POOL | {"database": "pgbouncer", "maxwait": "99"},
]
_STATS = [
    {"database": "cloudflow", "total_xact_count": "10", "total_wait_time": "1500"},
    {"database": "cloudflow_readonly", "total_xact_count": "1", "total_wait_time": "1500"},
    {"database": "pgbouncer", "total_xact_count": "1000", "total_wait_time": "1000"},
]


def test_a_sample_adds_the_pools_up_and_leaves_the_console_out() -> None:
    assert build_sample(_POOLS, _STATS).values == {
        Metric.CLIENTS_ACTIVE: 6,
        Metric.CLIENTS_WAITING: 4,
        Metric.LONGEST_WAIT: 1500,
        Metric.SERVERS_ACTIVE: 2,
        Metric.SERVERS_IDLE: 30,
        Metric.TRANSACTIONS: 11,
        Metric.WAIT_TIME: 3,
    }


def test_a_pgbouncer_that_nobody_has_used_yet_has_a_sample_of_zeros() -> None:
    assert set(build_sample([], []).values.values()) == {0}


def test_a_report_has_the_peak_of_each_count_and_the_growth_of_each_sum() -> None:
    def build(waiting: int, transactions: int) -> Sample:
        values = dict.fromkeys(Metric, 0)
        values |= {Metric.CLIENTS_WAITING: waiting, Metric.TRANSACTIONS: transactions}
        return Sample(values=values)

    values = combine(build(9, 100), [build(1, 110), build(5, 120), build(2, 130)])
    assert values[Metric.CLIENTS_WAITING] == 5
    assert values[Metric.TRANSACTIONS] == 30


def test_a_line_is_one_object_in_the_embedded_metric_format() -> None:
    values = {metric: number for number, metric in enumerate(Metric)}
    line = render_line(values, 'CloudFlow/"Staging"', now_seconds=1_700_000_000.5)
    assert "\n" not in line
    parsed = json.loads(line)
    assert parsed["_aws"]["Timestamp"] == 1_700_000_000_500
    (directive,) = parsed["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == 'CloudFlow/"Staging"'
    assert {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]} == UNITS
    assert {metric: parsed[metric] for metric in Metric} == values


def test_without_an_answer_a_line_says_why_and_the_next_period_is_tried(tmp_path: Path) -> None:
    lines = report(tmp_path, "CloudFlow/Staging", period_seconds=0.01)
    for _ in range(2):
        assert next(lines) == (
            "metrics: PgBouncer's console gave no answer "
            f"(FileNotFoundError: PgBouncer has no socket in {tmp_path})"
        )

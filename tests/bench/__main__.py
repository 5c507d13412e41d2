"""python -m tests.bench: measures the local database, the pool and the synth.

Each figure is a ratio to a reference that was measured in the same run.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from types import FrameType

from db.local.report import CommandError, Report
from tests.bench import instances, limits, resetting, serving, starting, synthesizing
from tests.bench.figures import Table, render

_INTERRUPTED = 130  # 128 + SIGINT, as a shell says it
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# These share one database. `starting` makes databases of its own.
_SERVING: dict[str, Callable[[serving.Servers, Report], Table]] = {
    "logins": serving.measure_logins,
    "reset": resetting.measure,
    "limits": limits.measure,
    "greedy": serving.measure_greedy,
    "many": serving.measure_many,
}


def main(arguments: list[str]) -> int:
    """Run the benchmarks. The exit status is 0 if they ran, 1 if one failed, 2 for wrong usage."""
    options = _build_parser().parse_args(arguments)
    for number in _STOPPING:
        signal.signal(number, _interrupt_once)
    started = time.monotonic()
    try:
        tables = _measure([options.only] if options.only else ["synth", "starting", *_SERVING])
    except CommandError as error:
        if error.detail:
            print(error.detail, file=sys.stderr)
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "bench: interrupted. Its servers are stopped and its folder is deleted.",
            file=sys.stderr,
        )
        return _INTERRUPTED
    if options.json:
        print(json.dumps([asdict(table) for table in tables], indent=2))
    else:
        print(f"\n{render(tables)}\nmeasured in {time.monotonic() - started:.0f} s")
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--only", choices=["synth", "starting", *_SERVING], help="run this benchmark only"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser


def _interrupt_once(_number: int, _frame: FrameType | None) -> None:
    """A second Ctrl-C must not keep the servers from being stopped."""
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _measure(names: list[str]) -> list[Table]:
    report = Report()
    tables: list[Table] = []
    with instances.make_folder() as folder:
        if "synth" in names:
            tables.append(synthesizing.measure(folder, report))
        if "starting" in names:
            tables.append(starting.measure(folder, report))
        chosen = [measure for name, measure in _SERVING.items() if name in names]
        if chosen:
            with serving.start_servers(folder, report) as servers:
                tables += [measure(servers, report) for measure in chosen]
    return tables


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

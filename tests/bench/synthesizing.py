"""Compares the synth of both environments with that of an app that has no stack."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from db.local.report import CommandError, Report
from tests.bench.figures import Figure, Table, compare
from tests.support.synthesis import CONTEXT, PROJECT, Synthesis, synthesize_audited
from tests.synth import snapshots

_ROUNDS = 5
_EMPTY_APP = "import aws_cdk; aws_cdk.App().synth()"
_COMPARISONS = 20  # one takes milliseconds


def measure(folder: Path, report: Report) -> Table:
    """Measure the empty app and ours in turn, without validation and with it."""
    figures: list[Figure] = []
    for is_validated in (False, True):
        empty: list[float] = []
        ours: list[float] = []
        with report.step(f"synth, {'with' if is_validated else 'without'} validation"):
            _synthesize(["app.py"], folder, is_validated=is_validated)  # compiles the modules
            for _ in range(_ROUNDS):
                empty.append(_synthesize(["-c", _EMPTY_APP], folder, is_validated=is_validated))
                ours.append(_synthesize(["app.py"], folder, is_validated=is_validated))
        figures.append(
            compare(
                "with validation" if is_validated else "without validation",
                "s",
                reference=empty,
                ours=ours,
                meaning="both environments, every stack"
                if is_validated
                else "both environments, every stack; the imports alone take twice the empty app",
            )
        )
    with report.step("snapshots"):
        figures.append(_measure_snapshots(synthesize_audited(folder / "audited")))
    return Table(title="SYNTH", reference_name="empty app", ours_name="ours", figures=figures)


def _synthesize(arguments: list[str], folder: Path, *, is_validated: bool) -> float:
    """The seconds of one synth, with the environment that `cdk` gives it."""
    environment = os.environ | {
        "CDK_OUTDIR": str(folder / "cdk.out"),
        "CDK_CONTEXT_JSON": json.dumps(CONTEXT),
        "PATH": f"{PROJECT / '.venv' / 'bin'}:{os.environ['PATH']}",
    }
    # Python keeps its compiled modules, as on a person's machine.
    for name in ("CDK_VALIDATION", "PYTHONDONTWRITEBYTECODE"):
        environment.pop(name, None)
    if not is_validated:
        environment["CDK_VALIDATION"] = "false"
    started = time.monotonic()
    finished = subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    if finished.returncode != 0:
        raise CommandError("a synth failed", detail=finished.stderr)
    return seconds


def _measure_snapshots(synthesis: Synthesis) -> Figure:
    seconds: list[float] = []
    for _ in range(_COMPARISONS):
        started = time.monotonic()
        if snapshots.compare(synthesis.templates):
            raise CommandError(
                "the snapshots differ from the templates of this tree: run make snapshots"
            )
        seconds.append(time.monotonic() - started)
    return Figure(
        name="comparing all snapshots",
        unit="s",
        ours=statistics.median(seconds),
        meaning="after the synth that the tests share",
    )

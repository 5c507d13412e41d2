"""How long a synth of both environments takes, against an empty app's: what the CDK itself needs.

It asks no network and starts no server. Validation is what the CDK checks by itself after a synth;
`CDK_VALIDATION=false` leaves it out.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from db.local.processes import run
from db.local.report import Refusal, Report
from tests import snapshots
from tests.bench.figures import Figure, Table, compare
from tests.synthesis import PROJECT

_ROUNDS = 5
_EMPTY_APP = "import aws_cdk\n\naws_cdk.App().synth()\n"
_VALIDATION = {"validated": "true", "unvalidated": "false"}


@dataclass(frozen=True, kw_only=True)
class Round:
    """Seconds of both apps, by whether they are validated, and of comparing the snapshots."""

    empty: dict[str, float]
    ours: dict[str, float]
    comparison: float


def measure(folder: Path, report: Report) -> Table:
    """Several rounds of every synth, the empty app's right before ours."""
    empty_app = folder / "empty.py"
    empty_app.write_text(_EMPTY_APP, encoding="utf-8")
    rounds: list[Round] = []
    for number in range(1, _ROUNDS + 1):
        with report.step(f"synthesizing, round {number} of {_ROUNDS}"):
            rounds.append(_measure_round(folder / f"synth{number}", empty_app))
    return Table(
        title="SYNTHESIZING",
        reference_name="empty app",
        ours_name="app.py",
        figures=[
            _judge_synth(
                rounds, "unvalidated", "both environments' stacks; the promise is at most 4"
            ),
            _judge_synth(
                rounds, "validated", "both apps with the CDK's own validation, as deployed"
            ),
            _judge_comparison(rounds),
        ],
    )


def _judge_synth(rounds: list[Round], name: str, meaning: str) -> Figure:
    return compare(
        f"synth, {name}",
        "s",
        reference=[one.empty[name] for one in rounds],
        ours=[one.ours[name] for one in rounds],
        meaning=meaning,
    )


def _judge_comparison(rounds: list[Round]) -> Figure:
    return compare(
        "snapshots, compared",
        "s",
        reference=[one.empty["unvalidated"] for one in rounds],
        ours=[one.comparison for one in rounds],
        meaning="every template against its snapshot, nothing changed; empty app: unvalidated",
    )


def _measure_round(folder: Path, empty_app: Path) -> Round:
    empty: dict[str, float] = {}
    ours: dict[str, float] = {}
    for name in _VALIDATION:
        empty[name] = _synthesize(empty_app, folder / f"{name}-empty", name)
        ours[name] = _synthesize(PROJECT / "app.py", folder / name, name)
    return Round(
        empty=empty, ours=ours, comparison=_compare_snapshots(folder / "unvalidated", folder)
    )


def _synthesize(app: Path, output: Path, name: str) -> float:
    """Seconds of an app's synth into a folder of its own, with the context `cdk` would hand it."""
    context = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "CDK_"))} | {
        "CDK_CONTEXT_JSON": json.dumps(context),
        "CDK_OUTDIR": str(output),
        "CDK_VALIDATION": _VALIDATION[name],
        "PATH": f"{PROJECT / '.venv' / 'bin'}:{os.environ['PATH']}",  # its node
    }
    output.mkdir(parents=True)
    started = time.monotonic()
    status, said = run([sys.executable, str(app)], folder=PROJECT, environment=environment)
    seconds = time.monotonic() - started
    if status:
        raise Refusal(f"{app.name} failed with status {status}", detail=said)
    return seconds


def _compare_snapshots(synthesized: Path, folder: Path) -> float:
    """Seconds of reading and comparing all templates with what was recorded of the same ones."""
    snapshots.write(_read_templates(synthesized), folder / "snapshots")
    started = time.monotonic()
    changed = snapshots.compare(_read_templates(synthesized), folder / "snapshots")
    seconds = time.monotonic() - started
    if changed:
        raise Refusal("the same templates differ from their snapshots", detail="\n".join(changed))
    return seconds


def _read_templates(synthesized: Path) -> dict[str, snapshots.Template]:
    return {
        path.name.removesuffix(".template.json"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(synthesized.glob("*.template.json"))
    }

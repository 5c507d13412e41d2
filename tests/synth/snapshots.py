"""Records every template in tests/synth/snapshots, in the form that a reviewer reads.

`make snapshots` writes the snapshots and prints what changed. It also writes the table of costs in
docs/design.md, which follows from the templates.
"""

import difflib
import sys
import tempfile
from pathlib import Path

from stacks.review.template_text import render
from tests.support.synthesis import PROJECT, Template, synthesize_audited
from tests.synth.cost_table import write_table

FOLDER = PROJECT / "tests" / "synth" / "snapshots"

_CONTEXT_LINES = 3


def compare(templates: dict[str, Template], folder: Path = FOLDER) -> list[str]:
    """The changed lines with their context, or nothing if every template is as recorded."""
    recorded = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    found = {name: render(template) for name, template in templates.items()}
    changed: list[str] = []
    for name in sorted(recorded.keys() | found.keys()):
        changed += difflib.unified_diff(
            recorded.get(name, "").splitlines(),
            found.get(name, "").splitlines(),
            f"{name} as recorded",
            f"{name} as synthesized",
            lineterm="",
            n=_CONTEXT_LINES,
        )
    return changed


def write(templates: dict[str, Template], folder: Path = FOLDER) -> None:
    """Record every template. The snapshot of a removed stack is deleted."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for name, template in templates.items():
        (folder / f"{name}.json").write_text(render(template), encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            synthesis = synthesize_audited(Path(folder) / "cdk.out")
            write_table(synthesis)
        except (AssertionError, ValueError) as failure:
            sys.exit(str(failure))
    changed = compare(synthesis.templates)
    write(synthesis.templates)
    print("\n".join(changed) or "make snapshots: nothing changed")


if __name__ == "__main__":
    main()

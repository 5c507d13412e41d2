"""Records every template in tests/synth/snapshots, in the form that a reviewer reads.

`make snapshots` writes the snapshots and prints what changed. It also writes the table of costs in
docs/design.md, which follows from the templates.
"""

import difflib
import json
import re
import sys
import tempfile
from pathlib import Path

from tests.support.synthesis import PROJECT, Template, synthesize_audited
from tests.synth.cost_table import write_table

FOLDER = PROJECT / "tests" / "synth" / "snapshots"

_ASSET_HASH = re.compile(r"[0-9a-f]{64}")
_CONTEXT_LINES = 3


def render(template: Template) -> str:
    """The template as sorted JSON. Asset hashes become ASSET1, ASSET2, in order of appearance.

    The parts that the CDK adds to every template are left out.
    """
    kept = {
        key: {k: v for k, v in value.items() if k != "BootstrapVersion"}
        if key == "Parameters"
        else value
        for key, value in template.items()
        if key != "Rules"
    }
    seen: dict[str, str] = {}
    return _ASSET_HASH.sub(
        lambda match: seen.setdefault(match[0], f"ASSET{len(seen) + 1}"),
        json.dumps({k: v for k, v in kept.items() if v}, indent=1, sort_keys=True) + "\n",
    )


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

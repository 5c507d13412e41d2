"""python -m tests.synth.snapshots: every template as a reviewer reads it."""

import difflib
import json
import re
import tempfile
from pathlib import Path

from tests.support.synthesis import PROJECT, Template, synthesize_audited

FOLDER = PROJECT / "tests" / "synth" / "snapshots"

_ASSET = re.compile(r"[0-9a-f]{64}")
_CONTEXT_LINES = 3


def render(template: Template) -> str:
    """Sorted, asset hashes masked by order of appearance, without what every template has."""
    kept = {
        key: {k: v for k, v in value.items() if k != "BootstrapVersion"}
        if key == "Parameters"
        else value
        for key, value in template.items()
        if key != "Rules"
    }
    seen: dict[str, str] = {}
    return _ASSET.sub(
        lambda match: seen.setdefault(match[0], f"ASSET{len(seen) + 1}"),
        json.dumps({k: v for k, v in kept.items() if v}, indent=1, sort_keys=True) + "\n",
    )


def compare(templates: dict[str, Template], folder: Path = FOLDER) -> list[str]:
    """The lines that changed, with a little around them; none where all is as recorded."""
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
    """Record them all; a stack that is no more loses its snapshot."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for name, template in templates.items():
        (folder / f"{name}.json").write_text(render(template), encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        templates = synthesize_audited(Path(folder) / "cdk.out").templates
    changed = compare(templates)
    write(templates)
    print("\n".join(changed) or "snapshots: nothing changed")


if __name__ == "__main__":
    main()

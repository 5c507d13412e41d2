"""Every template is as it was reviewed."""

import copy
from pathlib import Path

from stacks.review.template_text import render
from tests.support.synthesis import Synthesis
from tests.synth.snapshots import compare, write


def test_no_template_changes_without_its_snapshot(synthesis: Synthesis) -> None:
    changed = compare(synthesis.templates)
    assert not changed, (
        "Templates changed. If every line below is intended, run make snapshots and commit:\n"
        + "\n".join(changed)
    )


def test_only_changed_lines_are_shown(synthesis: Synthesis, tmp_path: Path) -> None:
    name = "CloudFlow-Production-Database"
    folder = tmp_path / "snapshots"
    write(synthesis.templates, folder)
    changed = copy.deepcopy(synthesis.templates)
    _, primary = next(
        (k, v)
        for k, v in changed[name]["Resources"].items()
        if k.startswith("Primary") and v["Type"] == "AWS::RDS::DBInstance"
    )
    primary["Properties"]["DBInstanceClass"] = "db.m7g.xlarge"
    lines = [line for line in compare(changed, folder) if line[:1] in "+-"]
    assert lines == [
        f"--- {name} as recorded",
        f"+++ {name} as synthesized",
        '-    "DBInstanceClass": "db.m7g.large",',
        '+    "DBInstanceClass": "db.m7g.xlarge",',
    ]


def test_only_asset_hashes_are_masked() -> None:
    template = {"Resources": {"A": "x" + "0f" * 32, "B": "0e" * 32, "C": "0f" * 31}}
    assert render(template) == (
        '{\n "Resources": {\n  "A": "xASSET1",\n  "B": "ASSET2",\n  "C": "'
        + "0f" * 31
        + '"\n }\n}\n'
    )

"""The app that `cdk` runs: what it prints where a setting is wrong."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.synthesis import PROJECT


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("is_multi_az=True", "is_multi_az=False", "production.is_multi_az is False; use True"),
        ("pooler_tasks_maximum=3", "pooler_tasks_maximum=9", "pooler_tasks_maximum is 9; lower it"),
    ],
    ids=["refused when made", "refused by a guard"],
)
def test_the_app_says_one_line_and_no_traceback(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    for name in ("app.py", "db", "stacks"):
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy2
        copy(PROJECT / name, tmp_path / name)
    environments = tmp_path / "stacks" / "environments.py"
    text = environments.read_text(encoding="utf-8")
    assert old in text
    environments.write_text(text.replace(old, new), encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, "app.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 1
    assert finished.stderr.count("\n") == 1, finished.stderr
    assert finished.stderr.startswith("stacks/environments.py: production.")
    assert said in finished.stderr

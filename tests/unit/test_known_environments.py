"""A wrong file of environments ends every command with one line."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.machine import PROJECT

_COMMANDS = ("find_stacks", "prepare_account", "rotate", "pin_base")
_WRONG = {
    "a wrong value": ("is_multi_az=True", "is_multi_az=False", "production.is_multi_az is False"),
    "an unknown name": ("replicas=2", "replica=2", "unexpected keyword argument 'replica'; stacks"),
    "no tuple": ("(STAGING, PRODUCTION)", "(STAGING)", "ENVIRONMENTS is no tuple; end one"),
}


@pytest.mark.parametrize("command", _COMMANDS)
@pytest.mark.parametrize("fault", _WRONG)
def test_a_wrong_setting_ends_a_command_with_one_line(
    fault: str, command: str, tmp_path: Path
) -> None:
    old, new, message = _WRONG[fault]
    for name in ("db", "stacks"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    environments = tmp_path / "stacks" / "environments.py"
    text = environments.read_text(encoding="utf-8")
    assert text.count(old) == 1
    environments.write_text(text.replace(old, new), encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, "-m", f"stacks.commands.{command}", "staging"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert line.startswith("stacks/environments.py: ")
    assert message in line

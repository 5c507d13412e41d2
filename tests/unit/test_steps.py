"""Long steps of the set-up leave nothing that stops the next one."""

import subprocess
import sys
import time
from pathlib import Path

from db.local.report import Report
from db.local.steps import LoggedSteps
from tests.support.machine import PROJECT

_RUN = """
import sys
from pathlib import Path
from db.local.report import Report
from db.local.steps import LoggedSteps
LoggedSteps(Report(), Path(sys.argv[1])).run("a step", ["sh", "-c", sys.argv[2]])
"""


def test_a_step_waits_for_the_programs_of_a_step_that_was_killed(tmp_path: Path) -> None:
    log, work = tmp_path / "log", tmp_path / "work"
    begun = tmp_path / "begun"
    script = f"touch {begun}; sleep 1; mkdir {work}; touch {work}/late; echo ended"
    process = subprocess.Popen([sys.executable, "-c", _RUN, str(log), script], cwd=PROJECT)
    while not begun.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    LoggedSteps(Report(), log).clear(work)
    assert not work.exists()
    time.sleep(0.2)
    assert not work.exists(), "the program of the killed step has ended"
    assert log.read_text(encoding="utf-8") == "", "the log begins anew"

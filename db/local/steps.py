"""Runs long commands as steps of a report."""

import fcntl
import os
import re
import shutil
import time
from pathlib import Path
from typing import IO

from db.local.programs import ended_on_failure, launch
from db.local.report import CommandError, Report

NEEDS_NETWORK = "it needs the network"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Debian's mvn prints some even if told not to
_TAIL_BYTES = 400


class LoggedSteps:
    """Runs commands whose output goes to a log file. The report shows the last line of it."""

    def __init__(self, report: Report, log: Path) -> None:
        self._report = report
        self._log = log

    def clear(self, folder: Path) -> None:
        """Delete what an earlier run left in a folder, once the programs of that run have ended."""
        with self._open_log():
            shutil.rmtree(folder, ignore_errors=True)

    def run(
        self, text: str, command: list[str], *, folder: Path | None = None, hint: str = ""
    ) -> None:
        """Run one command as the step `text`.

        If the command fails, this raises CommandError with its whole output. `hint` then says what
        the command needs.
        """
        # Our own make's flags must not reach the make of another project.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        with self._report.step(text) as show, self._open_log() as output:
            process = launch(command, output=output, folder=folder, environment=environment)
            with ended_on_failure(process):
                while process.poll() is None:
                    show(self._read_last_line())
                    time.sleep(0.1)
        if process.returncode:
            raise CommandError(
                f"{text}: {Path(command[0]).name} failed with status {process.returncode}; its "
                f"output is above and in {self._log}{'; ' if hint else ''}{hint}",
                detail=_COLOURS.sub("", self._log.read_text(encoding="utf-8", errors="replace")),
            )

    def _open_log(self) -> IO[bytes]:
        """Open the log, empty, once the programs of an earlier run have ended.

        Those programs have the log as their output, and with it the lock. They go on if this
        command is killed.
        """
        self._log.parent.mkdir(parents=True, exist_ok=True)
        output = self._log.open("ab")
        fcntl.flock(output, fcntl.LOCK_EX)
        output.truncate(0)
        return output

    def _read_last_line(self) -> str:
        with self._log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
        plain = (_COLOURS.sub("", line).strip() for line in reversed(lines[:-1]))
        return next((line for line in plain if line), "")

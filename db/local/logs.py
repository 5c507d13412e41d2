"""Reads what a server adds to its log."""

from pathlib import Path


class LogTail:
    """The part of a log that is written after this object is made."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._start = log.stat().st_size if log.exists() else 0

    def read(self) -> str:
        """The new part. "" if there is no log yet."""
        if not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            file.seek(self._start)
            return file.read().decode(errors="replace")

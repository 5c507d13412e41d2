"""What git knows of the base: its templates, and the files that changed since."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from stacks.review.differences import ReviewError, Template
from stacks.review.template_text import read_comparable

SNAPSHOTS = "tests/synth/snapshots"


@dataclass(frozen=True, kw_only=True)
class Base:
    """The commit that a branch is compared with: the newest that the branch and BASE share."""

    project: Path
    name: str
    commit: str

    def read(self, path: str) -> bytes | None:
        """A file as the base has it. None if the base does not have it."""
        finished = _run_git(self.project, "show", f"{self.commit}:{path}")
        return finished.stdout if finished.returncode == 0 else None

    def list_files(self, folder: str) -> list[str]:
        finished = _run_git(
            self.project, "ls-tree", "-r", "-z", "--name-only", self.commit, "--", f"{folder}/"
        )
        return [name for name in finished.stdout.decode().split("\0") if name]

    def read_templates(self) -> dict[str, Template]:
        """Each recorded template, by the name of its stack. Raises ReviewError."""
        paths = [path for path in self.list_files(SNAPSHOTS) if path.endswith(".json")]
        if not paths:
            raise ReviewError(
                f"{self.name} ({self.commit[:8]}) has no templates in {SNAPSHOTS}; name a newer "
                "commit: make review BASE=main"
            )
        return {
            Path(path).stem: read_comparable((self.read(path) or b"{}").decode("utf-8"))
            for path in paths
        }

    def list_changed_files(self) -> list[str]:
        """The files that differ from the base, with those that are not committed. Sorted."""
        changed = _run_git(self.project, "diff", "--name-only", "-z", "--no-renames", self.commit)
        new = _run_git(self.project, "ls-files", "-z", "--others", "--exclude-standard")
        names = (changed.stdout + new.stdout).decode().split("\0")
        return sorted({name for name in names if name})


def find_base(project: Path, name: str) -> Base:
    """The merge base of HEAD and a branch or commit. Raises ReviewError if git knows none."""
    finished = _run_git(project, "merge-base", "HEAD", "--end-of-options", name)
    commit = finished.stdout.decode().strip()
    if finished.returncode or not commit:
        words = finished.stderr.decode(errors="replace").strip().splitlines()
        reason = f" ({words[0]})" if words else ""
        raise ReviewError(
            f"BASE is {name!r}, and git finds no commit that it shares with this branch{reason}; "
            "fetch it, or name another branch or commit: make review BASE=main"
        )
    return Base(project=project, name=name, commit=commit)


def _run_git(project: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["git", "-C", str(project), *arguments], capture_output=True, check=False
        )
    except FileNotFoundError:
        raise ReviewError("git is missing, and the base is in git; install it") from None

"""A small repository with this project's files, in which a test commits, edits and reviews."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.synthesis import PROJECT

_FILES = ("app.py", "cdk.json", ".gitignore", "docs/prices.json")
_FOLDERS = ("db", "stacks", "tests/synth/snapshots")
_LINKED = (".venv", "node_modules")


@dataclass(frozen=True, kw_only=True)
class ReviewCheckout:
    """The repository. Its branch main has the files of this project, and HEAD is another branch."""

    folder: Path

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", "-c", "user.name=test", "-c", "user.email=test@cloudflow.example", *arguments],
            cwd=self.folder,
            env=_build_environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--no-gpg-sign", "--allow-empty", "--message", message)

    def replace(self, path: str, old: str, new: str) -> None:
        """Replace a text that is in the file."""
        file = self.folder / path
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{path} has no {old!r}"
        file.write_text(text.replace(old, new), encoding="utf-8")

    def append(self, path: str, text: str) -> None:
        with (self.folder / path).open("a", encoding="utf-8") as file:
            file.write(text)

    def write(self, path: str, text: str) -> None:
        (self.folder / path).write_text(text, encoding="utf-8")

    def review(self, *arguments: str, base: str = "main") -> "subprocess.CompletedProcess[str]":
        """Run the command behind `make review`."""
        return subprocess.run(
            [sys.executable, "-m", "stacks.review", base, *arguments],
            cwd=self.folder,
            env=_build_environment(),
            capture_output=True,
            text=True,
            check=False,
        )


def make_checkout(folder: Path) -> ReviewCheckout:
    """Copy the project's files, and commit them as main."""
    for name in _FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy2(PROJECT / name, folder / name)
    for name in _FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / name, folder / name, ignore=ignored)
    for name in _LINKED:
        (folder / name).symlink_to(PROJECT / name)
    made = ReviewCheckout(folder=folder)
    made.git("init", "--quiet", "--initial-branch", "main")
    # .gitignore names folders. These two are links here.
    (folder / ".git" / "info" / "exclude").write_text("\n".join(_LINKED) + "\n", encoding="utf-8")
    made.commit("The base")
    made.git("switch", "--quiet", "--create", "branch")
    return made


def _build_environment() -> dict[str, str]:
    """Our environment without git's variables. A hook of git would set them to its own folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {"PATH": f"{PROJECT / '.venv' / 'bin'}:{os.environ['PATH']}"}

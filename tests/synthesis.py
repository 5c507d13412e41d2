"""Synthesizes every stack once, through the real CDK command line: no credentials, no network."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
Template = dict[str, Any]

# Refuses every connection: a synth that asks anybody fails.
_NOWHERE = "http://127.0.0.1:9"


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """What one synth left: its folder, what it printed, and every template by its stack's name."""

    folder: Path
    errors: str
    templates: dict[str, Template]


def synthesize(folder: Path, *, app: str | None = None) -> Synthesis:
    """Run `cdk synth --strict`; raises AssertionError with all it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "CDK_"))}
    environment["PATH"] = f"{PROJECT / '.venv' / 'bin'}:{environment['PATH']}"
    environment |= dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _NOWHERE
    )
    environment["DOCKER_HOST"] = "tcp://127.0.0.1:9"
    finished = subprocess.run(
        [
            str(PROJECT / "node_modules" / ".bin" / "cdk"),
            "synth",
            "--quiet",
            "--strict",
            "--output",
            str(folder),
            *(["--app", app] if app else []),
        ],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise AssertionError(f"cdk synth failed:\n{finished.stdout}{finished.stderr}")
    return Synthesis(
        folder=folder,
        errors=finished.stderr,
        templates={
            path.name.removesuffix(".template.json"): json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(folder.glob("*.template.json"))
        },
    )


def synthesize_audited(folder: Path) -> Synthesis:
    """The app of tests/audited_app.py: fixed account, cdk-nag beside the built-in validation."""
    return synthesize(folder, app=f"{sys.executable} -m tests.audited_app")

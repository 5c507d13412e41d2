"""Synthesizes every stack through the real CDK command line, without credentials or network."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.accepted_findings import PACK, REMEDY

PROJECT = Path(__file__).resolve().parents[2]
# The CDK's feature flags, for an app that is not started by the command line.
CONTEXT: dict[str, Any] = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
Template = dict[str, Any]

# This address refuses every connection. A synth that asks a server fails.
_NOWHERE = "http://127.0.0.1:9"


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """The folder that one synth wrote, and every template by its stack's name."""

    folder: Path
    templates: dict[str, Template]


def run_cdk(*arguments: str, is_validated: bool = True, folder: Path = PROJECT) -> str:
    """The output of the CDK's command line. Raises AssertionError with all output on failure."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "CDK_"))}
    environment["PATH"] = f"{PROJECT / '.venv' / 'bin'}:{environment['PATH']}"
    environment |= dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _NOWHERE
    )
    environment["DOCKER_HOST"] = "tcp://127.0.0.1:9"
    if not is_validated:
        environment["CDK_VALIDATION"] = "false"
    finished = subprocess.run(
        [str(PROJECT / "node_modules" / ".bin" / "cdk"), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise AssertionError(f"cdk {arguments[0]} failed:\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def synthesize_audited(folder: Path) -> Synthesis:
    """Synthesize tests/support/audited_app.py: cdk-nag runs beside the built-in validation."""
    app = f"{sys.executable} -m tests.support.audited_app"
    try:
        run_cdk("synth", "--quiet", "--strict", "--output", str(folder), "--app", app)
    except AssertionError as failure:
        if PACK in str(failure):
            raise AssertionError(f"{failure}{REMEDY}") from None
        raise
    return read_synthesis(folder)


def read_synthesis(folder: Path) -> Synthesis:
    """The templates that a synth left in its folder."""
    return Synthesis(folder=folder, templates=read_templates(folder))


def read_templates(folder: Path) -> dict[str, Template]:
    """Every template in a cdk.out folder, by its stack's name."""
    return {
        path.name.removesuffix(".template.json"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.template.json"))
    }

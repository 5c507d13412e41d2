"""Synthesizes the working tree into a folder, without an account and without the network."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from stacks.review.differences import ReviewError, Template
from stacks.review.template_text import read_comparable, render

# The snapshots have this account (tests/support/audited_app.py).
ACCOUNT = "111111111111"
_SUFFIX = ".template.json"


def start_synth(project: Path, folder: Path) -> "subprocess.Popen[str]":
    """Start app.py. It writes the templates of every stack into the folder."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "CDK_"))}
    environment |= {
        "CDK_DEFAULT_ACCOUNT": ACCOUNT,
        "CDK_OUTDIR": str(folder),
        # The tests validate. Here it would take two more seconds.
        "CDK_VALIDATION": "false",
    }
    return subprocess.Popen(
        [sys.executable, str(project / "app.py")],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish_synth(process: "subprocess.Popen[str]", folder: Path) -> dict[str, Template]:
    """Wait for the synth. Returns each raw template by its stack's name. Raises ReviewError."""
    output, errors = process.communicate()
    if process.returncode:
        lines = [line for line in (output + errors).splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else "it printed no reason"
        raise ReviewError(f"the synth of the working tree failed: {reason}")
    return {
        path.name.removesuffix(_SUFFIX): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob(f"*{_SUFFIX}"))
    }


def make_comparable(template: Template) -> dict[str, Any]:
    """The template in the form that base.read_templates gives."""
    return read_comparable(render(template))

"""Runs other programs."""

import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from db.local.accounts import Account


def launch(
    command: list[str],
    *,
    output: int | IO[bytes],
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
    account: Account | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program without input.

    The program gets its own session. Ctrl-C then reaches only this process, which ends the program
    itself (ended_on_failure). The program does not ignore SIGINT, even if this process does: a
    shell starts `make up &` in a script like that, and the servers would keep it for life.
    """
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    switch = account if account and account.is_other else None
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=folder,
        start_new_session=True,
        user=switch.uid if switch else None,
        group=switch.gid if switch else None,
        extra_groups=[] if switch else None,
        preexec_fn=_restore_interrupt if is_ignored else None,  # noqa: PLW1509 (one thread)
    )


def _restore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(
    command: list[str],
    *,
    folder: Path,
    environment: dict[str, str] | None = None,
    account: Account | None = None,
) -> tuple[int, str]:
    """Run a program to its end. Returns its exit status and its whole output."""
    process = launch(
        command,
        output=subprocess.PIPE,
        folder=folder,
        environment=environment,
        account=account,
    )
    with ended_on_failure(process):
        output, _ = process.communicate()
    return process.wait(), output.decode(errors="replace")


@contextmanager
def ended_on_failure(process: subprocess.Popen[bytes]) -> Generator[None]:
    """End a launched program and its children if the block raises."""
    try:
        yield
    except BaseException:
        # The program may be gone already. A program under sudo belongs to root: it gets no signal.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise

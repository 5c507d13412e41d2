"""The app as `cdk` runs it: its error messages, its templates from any folder, and no telemetry."""

import os
import shutil
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.audited_app import ACCOUNT
from tests.support.synthesis import PROJECT, Synthesis, read_templates, run_cdk

_TELEMETRY_HOST = "cdk-cli-telemetry.us-east-1.api.aws"
_NOTICES_HOST = "cli.cdk.dev-tools.aws.dev"
_DEADLINE_SECONDS = 60


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("is_multi_az=True", "is_multi_az=False", "production.is_multi_az is False; use True"),
        ("pooler_tasks_maximum=3", "pooler_tasks_maximum=9", "pooler_tasks_maximum is 9; lower it"),
    ],
    ids=["refused by the record", "refused by a guard"],
)
def test_a_wrong_setting_is_one_line_and_no_traceback(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    for name in ("app.py", "cdk.json", "db", "stacks"):
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy2
        copy(PROJECT / name, tmp_path / name)
    environments = tmp_path / "stacks" / "environments.py"
    text = environments.read_text(encoding="utf-8")
    assert old in text
    environments.write_text(text.replace(old, new), encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, "app.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 1
    assert finished.stderr.count("\n") == 1, finished.stderr
    assert finished.stderr.startswith("stacks/environments.py: production.")
    assert message in finished.stderr


def test_the_templates_are_the_same_from_any_folder(synthesis: Synthesis, tmp_path: Path) -> None:
    app = f"env CDK_DEFAULT_ACCOUNT={ACCOUNT} make --silent -C {PROJECT} app"
    run_cdk("synth", "--quiet", "--app", app, is_validated=False, folder=tmp_path)
    assert read_templates(tmp_path / "cdk.out") == synthesis.templates


@contextmanager
def _record_requests() -> Generator[tuple[str, list[str]]]:
    """A proxy that refuses every request: its address, and the hosts that were asked for."""
    hosts: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:  # such as CONNECT example.com:443 HTTP/1.1
            hosts.append(self.rfile.readline().split()[1].decode().partition(":")[0])

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", hosts
        server.shutdown()


def _list_stacks(synthesis: Synthesis, *, folder: Path, cache: Path, proxy: str) -> None:
    """Run `cdk list`. It reads the cdk.json of this folder."""
    # With credentials, `cdk` asks AWS for their account.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "CDK_"))}
    environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy)
    environment |= {"CDK_HOME": str(cache), "CI": "false"}  # in CI, `cdk` asks for no notices
    subprocess.run(
        [PROJECT / "node_modules" / ".bin" / "cdk", "list", "--app", synthesis.folder],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def test_cdk_sends_no_telemetry_and_asks_for_no_notices(
    synthesis: Synthesis, tmp_path: Path
) -> None:
    with _record_requests() as (proxy, hosts), _record_requests() as (other_proxy, other_hosts):
        _list_stacks(synthesis, folder=PROJECT, cache=tmp_path / "a", proxy=proxy)
        # Without our cdk.json it does both. The telemetry comes from a process that outlives it.
        _list_stacks(synthesis, folder=tmp_path, cache=tmp_path / "b", proxy=other_proxy)
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while {*other_hosts} != {_TELEMETRY_HOST, _NOTICES_HOST}:
            assert time.monotonic() < deadline, other_hosts
            time.sleep(0.05)
        assert hosts == []

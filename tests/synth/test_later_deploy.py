"""A deploy after a promotion does not undo it: the real `cdk deploy` keeps the stack's parameter.

A server on this machine answers as CloudFormation does for a promoted stack. It refuses the update
itself, and the test reads what `cdk` asked for.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import aws_cdk as cdk
from aws_cdk import aws_ssm as ssm

from stacks.constructs.promotion_switch import PARAMETER, PromotionSwitch
from tests.support.audited_app import ACCOUNT
from tests.support.synthesis import CONTEXT, PROJECT

_REGION = "us-west-2"
_STACK = "Recovery"
_PROMOTED = f"""
  <Stacks><member>
    <StackName>{_STACK}</StackName>
    <StackId>arn:aws:cloudformation:{_REGION}:{ACCOUNT}:stack/{_STACK}/1</StackId>
    <StackStatus>UPDATE_COMPLETE</StackStatus>
    <CreationTime>2026-11-24T12:00:00Z</CreationTime>
    <Parameters><member>
      <ParameterKey>{PARAMETER}</ParameterKey><ParameterValue>true</ParameterValue>
    </member></Parameters>
  </member></Stacks>"""
_UPDATES = ("UpdateStack", "CreateChangeSet")


class _CloudFormation(ThreadingHTTPServer):
    """`asked` is the request of the update, by the names of its fields."""

    asked: dict[str, str] | None = None


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        request = {name: values[0] for name, values in parse_qs(body).items()}
        action = request["Action"]
        results = {
            "GetCallerIdentity": f"<Account>{ACCOUNT}</Account><Arn>a</Arn><UserId>u</UserId>",
            "DescribeStacks": _PROMOTED,
            "GetTemplate": f"<TemplateBody>{escape(json.dumps({'Resources': {}}))}</TemplateBody>",
        }
        if action in _UPDATES:
            assert isinstance(self.server, _CloudFormation)
            self.server.asked = request
        if action in results:
            self._send(
                200,
                f"<{action}Response><{action}Result>{results[action]}</{action}Result>"
                f"</{action}Response>",
            )
        else:
            self._send(
                400,
                "<ErrorResponse><Error><Type>Sender</Type><Code>ValidationError</Code>"
                f"<Message>{action} ends here</Message></Error></ErrorResponse>",
            )

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_arguments: Any, **_named: Any) -> None:  # noqa: ANN401
        """The test prints what it needs."""


@contextmanager
def _running() -> Generator[_CloudFormation]:
    server = _CloudFormation(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _synthesize(folder: Path) -> None:
    """A stack with the switch, as small as possible: without assets and without roles."""
    app = cdk.App(context=CONTEXT, outdir=str(folder))
    stack = cdk.Stack(
        app,
        _STACK,
        synthesizer=cdk.BootstraplessSynthesizer(),
        env=cdk.Environment(account=ACCOUNT, region=_REGION),
    )
    source = PromotionSwitch(stack, "Promotion").remove("the source")
    ssm.CfnParameter(stack, "Instance", type="String", value="x", description=source)
    app.synth()


def test_a_deploy_after_a_promotion_keeps_the_parameter(tmp_path: Path) -> None:
    _synthesize(tmp_path / "cdk.out")
    with _running() as server:
        finished = subprocess.run(
            [
                str(PROJECT / "node_modules" / ".bin" / "cdk"),
                *("deploy", _STACK, "--app", str(tmp_path / "cdk.out"), "--method", "direct"),
                *("--require-approval", "never", "--no-notices"),
            ],
            cwd=tmp_path,
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_REGION": _REGION,
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
                "CDK_DISABLE_VERSION_CHECK": "true",
                "CDK_DISABLE_CLI_TELEMETRY": "true",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        said = finished.stdout + finished.stderr
        assert server.asked is not None, said
    assert server.asked["StackName"] == _STACK
    assert PARAMETER in server.asked["TemplateBody"]
    assert {name: value for name, value in server.asked.items() if "Parameters" in name} == {
        "Parameters.member.1.ParameterKey": PARAMETER,
        "Parameters.member.1.UsePreviousValue": "true",
    }

"""The CDK app, through the real CDK command line."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from db.parameters import rds_parameters
from tests.conftest import PROJECT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every stack's template, by name, synthesized without credentials."""
    output = tmp_path_factory.mktemp("cdk.out")
    cdk = PROJECT / "node_modules" / ".bin" / "cdk"
    assert cdk.exists(), "the CDK's command line is missing: make test sets it up"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "CDK_"))}
    environment["PATH"] = f"{PROJECT / '.venv' / 'bin'}:{environment['PATH']}"
    synth = subprocess.run(
        [str(cdk), "synth", "--quiet", "--strict", "--output", str(output)],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert synth.returncode == 0, synth.stderr
    return {
        path.name.removesuffix(".template.json"): json.loads(path.read_text(encoding="utf-8"))
        for path in Path(output).glob("*.template.json")
    }


def test_the_shared_table_is_the_parameter_group_of_every_environment(
    templates: dict[str, Any],
) -> None:
    assert templates.keys() == {"CloudFlow-Staging-Database", "CloudFlow-Production-Database"}
    for template in templates.values():
        groups = [
            resource["Properties"]
            for resource in template["Resources"].values()
            if resource["Type"] == "AWS::RDS::DBParameterGroup"
        ]
        assert [group["Parameters"] for group in groups] == [rds_parameters()]
        assert [group["Family"] for group in groups] == ["postgres15"]

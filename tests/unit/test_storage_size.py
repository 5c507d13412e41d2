"""The function that measures the size of disks. botocore's Stubber answers for AWS."""

import json
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from stacks.handlers.storage_size import handler as storage_size
from stacks.handlers.storage_size.allocated_storage import find_sizes_bytes

_PRIMARY = "cloudflow-production-primary"


def test_an_instance_that_is_missing_hides_no_other_size(rds: Any, stubber: Stubber) -> None:  # noqa: ANN401
    stubber.add_client_error("describe_db_instances", "DBInstanceNotFound")
    stubber.add_response(
        "describe_db_instances",
        {"DBInstances": [{"AllocatedStorage": 200}]},
        {"DBInstanceIdentifier": _PRIMARY},
    )
    assert find_sizes_bytes(rds, ["cloudflow-production-replica-1", _PRIMARY]) == {
        _PRIMARY: 200 * 2**30
    }


def test_a_size_that_cannot_be_asked_for_is_an_error(rds: Any, stubber: Stubber) -> None:  # noqa: ANN401
    stubber.add_client_error("describe_db_instances", "AccessDenied")
    with pytest.raises(ClientError, match="AccessDenied"):
        find_sizes_bytes(rds, [_PRIMARY])


def test_the_size_of_each_disk_is_one_line_with_the_instance_as_its_dimension(
    rds: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in {
        "INSTANCES": f"{_PRIMARY},cloudflow-production-replica-1",
        "NAMESPACE": "CloudFlow/Production",
        "METRIC": "StorageSize",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "client", lambda _service: rds)
    with Stubber(rds) as stubber:
        for size_gib in (200, 240):
            stubber.add_response(
                "describe_db_instances", {"DBInstances": [{"AllocatedStorage": size_gib}]}
            )
        storage_size.handler({}, None)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["DBInstanceIdentifier"], line["StorageSize"]) for line in lines] == [
        (_PRIMARY, 200 * 2**30),
        ("cloudflow-production-replica-1", 240 * 2**30),
    ]
    (metric,) = lines[0]["_aws"]["CloudWatchMetrics"]
    assert metric["Dimensions"] == [["DBInstanceIdentifier"]]
    assert metric["Metrics"] == [{"Name": "StorageSize", "Unit": "Bytes"}]

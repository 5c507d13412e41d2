"""What the unit tests share."""

from collections.abc import Generator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """moto answers all calls of AWS, in us-east-1."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield


@pytest.fixture
def rds(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401
    """A client of RDS for the stubber, which answers instead of AWS."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    return boto3.client("rds", region_name="us-west-2")


@pytest.fixture
def stubber(rds: Any) -> Generator[Stubber]:  # noqa: ANN401
    """Answers for AWS. A response that nobody asked for is an error."""
    stubber = Stubber(rds)
    with stubber:
        yield stubber
        stubber.assert_no_pending_responses()

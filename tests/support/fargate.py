"""ECS on Fargate for the tests: moto answers the API, and each test says what becomes of a task.

moto's tasks know nothing of times, stop codes and reasons, which ECS always tells: they are added.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import boto3
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ecs import ecs_backends
from moto.logs import logs_backends
from moto.moto_api import state_manager

from stacks.handlers.migrations import TaskLocation

REGION = "us-east-1"
FAMILY = "cloudflow-staging-migrations"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@cache
def connect(service: str) -> Any:  # noqa: ANN401
    """A client, made once: reading a service's model takes longer than a test."""
    return boto3.client(
        service, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test"
    )


@dataclass(kw_only=True)
class Fargate:
    """One cluster, empty at first. Made within moto's mock_aws."""

    ecs: Any = field(default_factory=lambda: connect("ecs"))
    logs: Any = field(default_factory=lambda: connect("logs"))

    def __post_init__(self) -> None:
        # A task goes on until the test ends it.
        state_manager.set_transition("ecs::task", {"progression": "manual", "times": 10**9})
        ec2 = connect("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
        group = ec2.create_security_group(GroupName="flyway", Description="f", VpcId=vpc)["GroupId"]
        self.ecs.create_cluster(clusterName=FAMILY)
        self.ecs.put_account_setting(name="taskLongArnFormat", value="enabled")
        self.logs.create_log_group(logGroupName="/cloudflow/staging/migrations")
        self.place = TaskLocation(
            cluster=FAMILY,
            subnets=subnet,
            security_group=group,
            log_group="/cloudflow/staging/migrations",
            log_prefix="migrations",
            container="flyway",
        )

    def register(self, **container: Any) -> str:  # noqa: ANN401
        """A new revision of the task definition; returns its ARN."""
        answer = self.ecs.register_task_definition(
            family=FAMILY,
            networkMode="awsvpc",
            requiresCompatibilities=["FARGATE"],
            cpu="512",
            memory="1024",
            containerDefinitions=[
                {"name": "flyway", "image": "flyway", "memory": 1024, "cpu": 512} | container
            ],
        )
        return str(answer["taskDefinition"]["taskDefinitionArn"])

    def tasks(self) -> list[Any]:
        """Every task that was ever started, oldest first."""
        return list(ecs_backends[DEFAULT_ACCOUNT_ID][REGION].tasks.get(FAMILY, {}).values())

    def date(self, task: Any, *, age: timedelta = timedelta()) -> None:  # noqa: ANN401
        """A task's age."""
        task.created_at = NOW - age

    def end(
        self,
        task: Any,  # noqa: ANN401
        *,
        exit_code: int | None = 0,
        output: str = "",
        age: timedelta = timedelta(),
        **told: str,
    ) -> None:
        """Let a task end: what it wrote, its status, what ECS tells of it."""
        if output:
            self.write(task, output)
        task.last_status = task.desired_status = "STOPPED"
        task.stopped_at = NOW - age
        task.stop_code = told.get("stop_code", "EssentialContainerExited")
        task.stopped_reason = told.get("stopped_reason", "Essential container in task exited")
        (container,) = task.containers
        container.exit_code = container.exitCode = exit_code
        container.reason = told.get("reason")

    def write(self, task: Any, output: str) -> None:  # noqa: ANN401
        """What a task writes arrives in its log, a line an event."""
        stream = f"migrations/flyway/{task.id}"
        backend = logs_backends[DEFAULT_ACCOUNT_ID][REGION]
        if stream not in backend.groups[self.place.log_group].streams:
            self.logs.create_log_stream(logGroupName=self.place.log_group, logStreamName=stream)
        moment = int(datetime.now(UTC).timestamp() * 1000)
        self.logs.put_log_events(
            logGroupName=self.place.log_group,
            logStreamName=stream,
            logEvents=[
                {"timestamp": moment, "message": line} for line in output.split("\n") if line
            ],
        )

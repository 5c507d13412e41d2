"""ECS on Fargate for the tests. moto answers the API, and a test decides how a task ends.

moto's tasks have no times, stop codes and stop reasons. ECS always gives them, so they are added.
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

from stacks.handlers.start_migrations.start import TaskLocation
from stacks.handlers.watch_migrations.task_log import TaskLog

REGION = "us-east-1"
FAMILY = "cloudflow-staging-migrations"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@cache
def connect(service: str) -> Any:  # noqa: ANN401
    """A client. It is made once, because reading its service's model takes longer than a test."""
    return boto3.client(
        service, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test"
    )


@dataclass(kw_only=True)
class Fargate:
    """One cluster without tasks. It must be made inside moto's mock_aws."""

    ecs: Any = field(default_factory=lambda: connect("ecs"))
    logs: Any = field(default_factory=lambda: connect("logs"))

    def __post_init__(self) -> None:
        # A task runs until the test ends it.
        state_manager.set_transition("ecs::task", {"progression": "manual", "times": 10**9})
        ec2 = connect("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
        group = ec2.create_security_group(GroupName="flyway", Description="f", VpcId=vpc)["GroupId"]
        self.ecs.create_cluster(clusterName=FAMILY)
        self.ecs.put_account_setting(name="taskLongArnFormat", value="enabled")
        self.logs.create_log_group(logGroupName="/cloudflow/staging/migrations")
        self.location = TaskLocation(cluster=FAMILY, subnets=(subnet,), security_group=group)
        self.log = TaskLog(
            group="/cloudflow/staging/migrations", prefix="migrations", container="flyway"
        )

    def register(self, **container: Any) -> str:  # noqa: ANN401
        """Register a new revision of the task definition. Returns its ARN."""
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
        """Set the age of a task."""
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
        """End a task, with its output, its status and what ECS says about it."""
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
        """Write the output of a task into its log, one event a line."""
        stream = self.log.name_stream(task.task_arn)
        backend = logs_backends[DEFAULT_ACCOUNT_ID][REGION]
        if stream not in backend.groups[self.log.group].streams:
            self.logs.create_log_stream(logGroupName=self.log.group, logStreamName=stream)
        moment = int(datetime.now(UTC).timestamp() * 1000)
        self.logs.put_log_events(
            logGroupName=self.log.group,
            logStreamName=stream,
            logEvents=[
                {"timestamp": moment, "message": line} for line in output.split("\n") if line
            ],
        )

"""A Lambda function that EventBridge runs on a schedule."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from stacks.constructs.functions import build_function

_TIMEOUT = cdk.Duration.seconds(30)


def build_scheduled_function(
    scope: Construct,
    construct_id: str,
    *,
    name: str,
    description: str,
    handler: str,
    environment: dict[str, str],
    statements: Sequence[iam.PolicyStatement],
    interval: cdk.Duration,
    is_enabled: bool = True,
) -> lambda_.Function:
    function = build_function(
        scope,
        construct_id,
        name=name,
        description=description,
        handler=handler,
        environment=environment,
        timeout=_TIMEOUT,
        statements=statements,
    )
    events.Rule(
        scope,
        f"{construct_id}Schedule",
        description=f"Runs {name}",
        schedule=events.Schedule.rate(interval),
        enabled=is_enabled,
        targets=[targets.LambdaFunction(function)],
    )
    return function

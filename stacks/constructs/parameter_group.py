"""The PostgreSQL parameters of RDS instances."""

import aws_cdk as cdk
from aws_cdk import aws_rds as rds
from constructs import Construct

from db.parameters import POSTGRES_MAJOR
from stacks.constructs.postgres_engine import build_engine
from stacks.settings.versions import POSTGRES_VERSION

# The family of a group follows from the major version only.
_ENGINE = build_engine(POSTGRES_VERSION)


def build_parameter_group(
    scope: Construct, construct_id: str, *, role: str, parameters: dict[str, str]
) -> rds.ParameterGroup:
    """The group stays after its stack is deleted, because a retained instance uses it."""
    group = rds.ParameterGroup(
        scope,
        construct_id,
        # AWS replaces a parameter group when its description changes.
        description=f"CloudFlow PostgreSQL {POSTGRES_MAJOR}, {role}",
        engine=_ENGINE,
        parameters=parameters,
        removal_policy=cdk.RemovalPolicy.RETAIN,
    )
    group.bind_to_instance()
    return group

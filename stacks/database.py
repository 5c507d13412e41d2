"""What holds data: its lifetime is that of the data, not of what uses it."""

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_rds as rds
from constructs import Construct

from db.parameters import POSTGRES_MAJOR


class DatabaseStack(cdk.Stack):
    """One environment's database; today the parameter group its instances will use."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        env: cdk.Environment,
        parameters: Mapping[str, str],
    ) -> None:
        super().__init__(scope, construct_id, env=env)
        self.parameter_group: rds.IParameterGroup = self._build_parameter_group(parameters)

    def _build_parameter_group(self, parameters: Mapping[str, str]) -> rds.ParameterGroup:
        version = rds.PostgresEngineVersion.of(str(POSTGRES_MAJOR), str(POSTGRES_MAJOR))
        group = rds.ParameterGroup(
            self,
            "Parameters",
            description=f"CloudFlow PostgreSQL {POSTGRES_MAJOR}",
            engine=rds.DatabaseInstanceEngine.postgres(version=version),
            parameters=parameters,
        )
        group.bind_to_instance()  # The CDK renders no group that nothing is bound to.
        return group

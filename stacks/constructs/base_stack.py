"""The base class of all stacks: name, region, termination protection and tags."""

import aws_cdk as cdk
from constructs import Construct

from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings, Region

PROJECT = "cloudflow-database"


class BaseStack(cdk.Stack):
    """A stack of one environment in one region.

    `role` ends the stack's name: Network, Database and so on. `is_protected` is for a stack whose
    deletion would delete data, would leave a database without its network or key, or would take the
    clients' endpoint away. If `account` is None, the stack is deployed to the account of the
    credentials.
    """

    def __init__(
        self,
        scope: Construct,
        *,
        settings: EnvironmentSettings,
        role: str,
        region: Region,
        account: str | None,
        description: str,
        is_protected: bool,
    ) -> None:
        super().__init__(
            scope,
            names.stack(settings, role),
            env=cdk.Environment(account=account, region=region.name),
            description=f"CloudFlow {settings.name}: {description}",
            termination_protection=settings.is_deletion_protected and is_protected,
        )
        self._zones = list(region.zones)
        tags = {"project": PROJECT, "environment": settings.name, "stack": role}
        for key, value in tags.items():
            cdk.Tags.of(self).add(key, value)

    @property
    def availability_zones(self) -> list[str]:
        """The zones of the settings. Without this, the CDK asks AWS for the account's zones."""
        return self._zones

"""The network of one region."""

import aws_cdk as cdk
from constructs import Construct

from stacks.constructs.network import DatabaseNetwork
from stacks.settings.environment import EnvironmentSettings, Region


class NetworkStack(cdk.Stack):
    """One region's network; in the recovery region its key joins it (stacks/recovery_base.py)."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        env: cdk.Environment,
        settings: EnvironmentSettings,
        region: Region,
        description: str,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=env,
            description=description,
            termination_protection=settings.is_deletion_protected,
        )
        self._zones = list(region.zones)
        self.network = DatabaseNetwork(self, "Network", settings=settings, region=region)

    @property
    def availability_zones(self) -> list[str]:
        """Those of the settings: the CDK would ask AWS for the account's."""
        return self._zones

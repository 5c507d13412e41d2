"""What the recovery region has before anything is copied into it: its network and its key."""

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from constructs import Construct

from db.settings import Environment
from stacks.instances import build_key
from stacks.network import Network


class RecoveryBaseStack(cdk.Stack):
    """Goes before Database, whose backups and secrets are copied under this key."""

    def __init__(
        self, scope: Construct, construct_id: str, *, env: cdk.Environment, settings: Environment
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=env,
            description=f"CloudFlow {settings.name}: network and key of the recovery region",
            termination_protection=settings.is_deletion_protected,
        )
        self._zones = list(settings.recovery.zones)
        self.key: kms.IKey = build_key(self, settings, purpose="recovery")
        self.network = Network(self, "Network", settings=settings, region=settings.recovery)

    @property
    def availability_zones(self) -> list[str]:
        """Those of the settings: the CDK would ask AWS for the account's."""
        return self._zones

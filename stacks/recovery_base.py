"""What the recovery region has before anything is copied into it: its network and its key."""

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from constructs import Construct

from stacks.constructs.instances import build_key
from stacks.network import NetworkStack
from stacks.settings.environment import EnvironmentSettings


class RecoveryBaseStack(NetworkStack):
    """Goes before Database, whose backups and secrets are copied under this key."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        env: cdk.Environment,
        settings: EnvironmentSettings,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=env,
            settings=settings,
            region=settings.recovery,
            description=f"CloudFlow {settings.name}: network and key of the recovery region",
        )
        self.key: kms.IKey = build_key(self, settings, purpose="recovery")

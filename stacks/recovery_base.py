"""The stack of the network and the key in the recovery region."""

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from constructs import Construct

from stacks.constructs.base_stack import BaseStack
from stacks.constructs.encryption_key import build_encryption_key
from stacks.constructs.network import DatabaseNetwork
from stacks.settings.environment import EnvironmentSettings


class RecoveryBaseStack(BaseStack):
    """Deployed before the Database stack, which encrypts its backups and secrets with this key."""

    def __init__(
        self, scope: Construct, *, settings: EnvironmentSettings, account: str | None
    ) -> None:
        super().__init__(
            scope,
            settings=settings,
            role="RecoveryBase",
            region=settings.recovery,
            account=account,
            description="network and key of the recovery region",
            is_protected=True,
        )
        self.network = DatabaseNetwork(
            self,
            "Network",
            settings=settings,
            region=settings.recovery,
            has_endpoints=settings.has_recovery_endpoints
            or settings.is_recovery_promoted
            or settings.recovery_pooler_tasks > 0,
        )
        self.key: kms.IKey = build_encryption_key(
            self,
            settings,
            purpose="recovery",
            # Nothing uses the key before this stack is complete. A failed creation deletes it.
            removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
        )

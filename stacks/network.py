"""The stack of the network in the primary region."""

from constructs import Construct

from stacks.constructs.base_stack import BaseStack
from stacks.constructs.network import DatabaseNetwork
from stacks.settings.environment import EnvironmentSettings


class NetworkStack(BaseStack):
    """The VPC, subnets and private zone that the primary region's other stacks use."""

    def __init__(
        self, scope: Construct, *, settings: EnvironmentSettings, account: str | None
    ) -> None:
        super().__init__(
            scope,
            settings=settings,
            role="Network",
            region=settings.primary,
            account=account,
            description="the network of its database",
            is_protected=True,
        )
        self.network = DatabaseNetwork(self, "Network", settings=settings, region=settings.primary)

"""Synthesizes CloudFlow's database for each environment on AWS."""

import os

import aws_cdk as cdk

from db.parameters import rds_parameters
from stacks.database import DatabaseStack


def build_stacks(app: cdk.App, *, account: str | None) -> None:
    """Adds every environment's stacks to the app; without an account they fit any."""
    for environment in ("Staging", "Production"):
        DatabaseStack(
            app,
            f"CloudFlow-{environment}-Database",
            env=cdk.Environment(account=account, region="us-east-1"),
            parameters=rds_parameters(),
        )


def main() -> None:
    app = cdk.App()
    # The CDK's command line sets it from the caller's credentials.
    build_stacks(app, account=os.environ.get("CDK_DEFAULT_ACCOUNT"))
    app.synth()


if __name__ == "__main__":
    main()

"""The CDK app as the tests synthesize it: one fixed account, and cdk-nag's AwsSolutions rules."""

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from app import build_stacks
from db.migrations import read_migrations

ACCOUNT = "111111111111"


def main() -> None:
    app = cdk.App()
    build_stacks(app, migrations=read_migrations(), account=ACCOUNT)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()


if __name__ == "__main__":
    main()

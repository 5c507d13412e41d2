"""The CDK app as the tests synthesize it: one fixed account, and two packs of cdk-nag's rules."""

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks, NIST80053R5Checks

from app import build_stacks
from db.migrations import read_migrations
from stacks.constructs.findings import acknowledge
from stacks.known_environments import read_environments
from tests.support.accepted_findings import read_accepted_findings

ACCOUNT = "111111111111"


def main() -> None:
    app = cdk.App()
    build_stacks(app, read_environments(), migrations=read_migrations(), account=ACCOUNT)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app), NIST80053R5Checks(app))
    # The synth fails on a rule that docs/design.md does not have. tests/synth/test_audit.py
    # compares the constructs on which a rule is not satisfied.
    for rule_id in sorted({accepted.rule_id for accepted in read_accepted_findings()}):
        acknowledge(app, rule_id, "docs/design.md has the reason")
    app.synth()


if __name__ == "__main__":
    main()

"""Findings of the validators that are accepted, each beside the resource, with its reason."""

import aws_cdk as cdk
from constructs import Construct


def acknowledge(construct: Construct, rule: str, reason: str) -> None:
    """Accept one finding on a construct; the rule is "Pack::Rule", as `cdk synth` prints it.

    The reason is for a security reviewer. tests/test_audit.py fails when nothing needs it any more.
    """
    cdk.Validations.of(construct).acknowledge(cdk.Acknowledgment(id=rule, reason=reason))

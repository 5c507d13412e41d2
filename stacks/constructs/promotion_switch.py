"""The switch that promotes the recovery region: one parameter of the deployed stack.

CloudFormation keeps the template of each deploy, in the region of the stack. With this parameter a
person promotes with that template (docs/runbook.md#loss-of-a-region). So a promotion needs the AWS
CLI only: no build, no package, and no other commit than the deployed one. `cdk deploy` keeps the
value of the parameter, so a later deploy does not undo a promotion.
"""

from typing import Any

import aws_cdk as cdk
from constructs import Construct

# docs/runbook.md has this name.
PARAMETER = "IsRecoveryPromoted"
_CONDITION = "RecoveryIsPromoted"


class PromotionSwitch(Construct):
    """Gives a property one value before the promotion, and another value from then on."""

    def __init__(self, scope: Construct, construct_id: str) -> None:
        super().__init__(scope, construct_id)
        parameter = cdk.CfnParameter(
            self,
            "Parameter",
            description="true makes the replica the primary. Nothing can undo this. See "
            "docs/runbook.md",
            allowed_values=["false", "true"],
            default="false",
        )
        parameter.override_logical_id(PARAMETER)
        condition = cdk.CfnCondition(
            self,
            "Condition",
            expression=cdk.Fn.condition_equals(parameter.value_as_string, "true"),
        )
        condition.override_logical_id(_CONDITION)

    def remove(self, before: str) -> str:
        """The value before the promotion. Then the property is not in the template any more."""
        return cdk.Token.as_string(_choose(before, {"Ref": "AWS::NoValue"}))

    def change(self, before: int, after: int) -> float:
        """The number before the promotion, or the one from then on."""
        return cdk.Token.as_number(_choose(before, after))


def _choose(before: object, after: object) -> dict[str, list[Any]]:
    return {"Fn::If": [_CONDITION, after, before]}

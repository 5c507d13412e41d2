"""`make review` tells wider access from narrower access, however it is written."""

from typing import Any

import pytest

from stacks.review.access import judge_access
from stacks.review.differences import StackPair
from stacks.review.verdicts import Effect


def _judge(old: dict[str, Any], new: dict[str, Any]) -> set[Effect]:
    pair = StackPair(
        name="stack",
        environment="staging",
        stack="Pooling",
        old={"Resources": old},
        new={"Resources": new},
    )
    return {verdict.effect for verdict in judge_access(pair, {})}


def _port(cidr: str, first: int = 5432, last: int = 5432, protocol: str = "tcp") -> dict[str, Any]:
    rule = {"IpProtocol": protocol, "FromPort": first, "ToPort": last, "CidrIp": cidr}
    return {
        "Group": {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {"SecurityGroupIngress": [rule]},
        }
    }


@pytest.mark.parametrize(
    ("old", "new", "effects"),
    [
        (_port("10.0.0.0/16"), _port("10.0.0.0/8"), {Effect.WIDENED}),
        (_port("10.0.0.0/8"), _port("10.0.0.0/16"), {Effect.NARROWED}),
        (_port("10.0.0.0/16"), _port("10.1.0.0/16"), {Effect.WIDENED, Effect.NARROWED}),
        (_port("10.0.0.0/16"), _port("10.0.0.0/16", 0, 65535), {Effect.WIDENED}),
        (_port("10.0.0.0/16"), _port("10.0.0.0/16", protocol="-1"), {Effect.WIDENED}),
        (_port("10.0.0.0/16"), _port("10.0.0.0/16"), set()),
        ({}, _port("10.0.0.0/16"), {Effect.WIDENED}),
        # The CDK's rule for "nobody".
        ({}, _port("255.255.255.255/32"), set()),
    ],
)
def test_a_port_opens_or_closes(
    old: dict[str, Any], new: dict[str, Any], effects: set[Effect]
) -> None:
    assert _judge(old, new) == effects


def _policy(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    statement = {
        "Effect": "Allow",
        "Action": "s3:GetObject",
        "Resource": {"Fn::Join": ["", ["arn:aws:s3:::", {"Ref": "Bucket"}, "/a"]]},
    }
    return {
        "Policy": {
            "Type": "AWS::IAM::Policy",
            "Properties": {
                "PolicyDocument": {"Statement": [statement | changes]},
                "Roles": [{"Ref": "Role"}],
            },
        }
    }


_WHOLE = {"Fn::Join": ["", ["arn:aws:s3:::", {"Ref": "Bucket"}, "/*"]]}
_CONDITION = {"StringEquals": {"aws:SourceAccount": "1"}}


@pytest.mark.parametrize(
    ("new", "effects"),
    [
        (_policy(Action="s3:*"), {Effect.WIDENED}),
        (_policy(Action=["s3:GetObject", "s3:PutObject"]), {Effect.WIDENED}),
        (_policy(Resource=_WHOLE), {Effect.WIDENED}),
        (_policy(Resource="*"), {Effect.WIDENED}),
        (_policy(Action="s3:DeleteObject"), {Effect.WIDENED, Effect.NARROWED}),
        (_policy(Condition=_CONDITION), {Effect.NARROWED}),
        (_policy(Action="S3:getobject"), set()),  # IAM does not tell the case of letters apart
        (_policy(Sid="Another"), set()),
        (_policy(Effect="Deny"), {Effect.NARROWED}),
    ],
)
def test_a_policy_allows_more_or_less(new: dict[str, Any], effects: set[Effect]) -> None:
    assert _judge(_policy(), new) == effects
    mirror = {Effect.WIDENED: Effect.NARROWED, Effect.NARROWED: Effect.WIDENED}
    assert _judge(new, _policy()) == {mirror[effect] for effect in effects}


def test_a_policy_that_is_split_in_two_allows_the_same() -> None:
    parts = {
        name: _policy(Action=action)["Policy"]
        for name, action in (("One", "s3:GetObject"), ("Two", "s3:PutObject"))
    }
    assert _judge(_policy(Action=["s3:GetObject", "s3:PutObject"]), parts) == set()


@pytest.mark.parametrize(
    ("principal", "effects"),
    [
        ("*", {Effect.WIDENED}),
        ({"AWS": "*"}, {Effect.WIDENED}),
        ({"AWS": ["one", "two"]}, {Effect.WIDENED}),
        ({"Service": "one"}, {Effect.WIDENED, Effect.NARROWED}),
    ],
)
def test_a_key_that_more_may_use_is_found(principal: Any, effects: set[Effect]) -> None:  # noqa: ANN401
    def build(value: Any) -> dict[str, Any]:  # noqa: ANN401
        statement = {
            "Effect": "Allow",
            "Action": "kms:*",
            "Resource": "*",
            "Principal": value,
        }
        properties = {"KeyPolicy": {"Statement": [statement]}}
        return {"Key": {"Type": "AWS::KMS::Key", "Properties": properties}}

    assert _judge(build({"AWS": "one"}), build(principal)) == effects


def test_a_function_that_another_service_may_call_is_found() -> None:
    permission = {
        "Type": "AWS::Lambda::Permission",
        "Properties": {
            "Principal": "events.amazonaws.com",
            "Action": "lambda:InvokeFunction",
            "FunctionName": {"Ref": "Function"},
        },
    }
    assert _judge({}, {"Permission": permission}) == {Effect.WIDENED}

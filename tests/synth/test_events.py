"""Events that people hear of, and events that replace PgBouncer's tasks."""

import json
import re
from typing import Any

import pytest

from stacks.environments import STAGING
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings
from tests.support.audited_app import ACCOUNT
from tests.support.event_patterns import is_match
from tests.support.synthesis import Synthesis, Template
from tests.support.templates import build_once, each_environment, find, only

_RULE = "AWS::Events::Rule"
_CLUSTER = names.cluster(STAGING)
_SERVICE = names.pooler(STAGING)

# AWS's sample (ECS Developer Guide, "Amazon ECS service deployment state change events") with this
# project's service.
_ROLLOUT: dict[str, Any] = {
    "version": "0",
    "id": "ddca6449-b258-46c0-8653-e0e3aEXAMPLE",
    "detail-type": "ECS Deployment State Change",
    "source": "aws.ecs",
    "account": ACCOUNT,
    "time": "2020-05-23T12:31:14Z",
    "region": "us-east-1",
    "resources": [f"arn:aws:ecs:us-east-1:{ACCOUNT}:service/{_CLUSTER}/{_SERVICE}"],
    "detail": {
        "eventType": "ERROR",
        "eventName": "SERVICE_DEPLOYMENT_FAILED",
        "deploymentId": "ecs-svc/123",
        "updatedAt": "2020-05-23T11:11:11Z",
        "reason": "ECS deployment circuit breaker: task failed to start.",
    },
}

# AWS's sample (ECS Developer Guide, "Amazon ECS task state change events"), shortened, with this
# project's task.
_TASK: dict[str, Any] = {
    "version": "0",
    "id": "3317b2af-7005-947d-b652-f55e762e571a",
    "detail-type": "ECS Task State Change",
    "source": "aws.ecs",
    "account": ACCOUNT,
    "time": "2020-01-23T17:57:58Z",
    "region": "us-east-1",
    "resources": [f"arn:aws:ecs:us-east-1:{ACCOUNT}:task/cloudflow-staging-migrations/c13b"],
    "detail": {
        "clusterArn": f"arn:aws:ecs:us-east-1:{ACCOUNT}:cluster/cloudflow-staging-migrations",
        "containers": [
            {
                "containerArn": f"arn:aws:ecs:us-east-1:{ACCOUNT}:container/cf15",
                "exitCode": 0,
                "lastStatus": "STOPPED",
                "name": "flyway",
            }
        ],
        "desiredStatus": "STOPPED",
        "group": f"family:{names.migrations(STAGING)}",
        "lastStatus": "STOPPED",
        "overrides": {"containerOverrides": [{"name": "flyway"}]},
        "startedBy": "deploy-1",
        "stoppedReason": "Essential container in task exited",
        "stoppedAt": "2020-01-23T17:57:58.103Z",
    },
}
_RUNNING_CONTAINER = {"name": "flyway", "lastStatus": "RUNNING"}


def _change(event: dict[str, Any], **detail: Any) -> dict[str, Any]:  # noqa: ANN401
    return event | {"detail": event["detail"] | detail}


def _end_with(exit_code: int | None) -> list[dict[str, Any]]:
    container = {"name": "flyway", "lastStatus": "STOPPED"}
    return [container if exit_code is None else container | {"exitCode": exit_code}]


def _find_rule(template: Template, subject: str) -> dict[str, Any]:
    (rule,) = (
        rule
        for rule in find(template, _RULE).values()
        if rule.get("Name") == names.rule(STAGING, subject)
    )
    return rule


def _find_renewal(template: Template) -> dict[str, Any]:
    (rule,) = (rule for rule in find(template, _RULE).values() if "EventPattern" in rule)
    return rule


@pytest.fixture(scope="module")
def stacks(synthesis: Synthesis) -> dict[str, Template]:
    """Staging's templates, by role."""
    return {
        name.removeprefix(names.stack(STAGING, "")): template
        for name, template in synthesis.templates.items()
    }


@pytest.mark.parametrize(
    ("event", "is_told"),
    [
        (_ROLLOUT, True),
        (_change(_ROLLOUT, eventName="SERVICE_DEPLOYMENT_COMPLETED"), False),
        (_change(_ROLLOUT, eventName="SERVICE_DEPLOYMENT_IN_PROGRESS"), False),
        (_ROLLOUT | {"resources": [f"{_ROLLOUT['resources'][0]}-2"]}, False),
        (_ROLLOUT | {"detail-type": "ECS Service Action"}, False),
        (_TASK, False),
    ],
)
def test_a_failed_rollout_of_pgbouncer_is_told(
    event: dict[str, Any],
    is_told: bool,
    stacks: dict[str, Template],
) -> None:
    for role, region in (("Monitoring", "us-east-1"), ("Recovery", "us-west-2")):
        here = json.loads(json.dumps(event).replace("us-east-1", region))
        pattern = _find_rule(stacks[role], "rollout-failed")["EventPattern"]
        assert is_match(pattern, here) is is_told
    (service,) = find(stacks["Recovery"], "AWS::ECS::Service").values()
    assert service["ServiceName"] == _SERVICE


@pytest.mark.parametrize(
    ("event", "is_told"),
    [
        (_change(_TASK, containers=_end_with(1)), True),
        (_change(_TASK, containers=_end_with(137), startedBy="by-hand"), True),
        (_change(_TASK, containers=_end_with(None)), True),
        (_change(_TASK, containers=[]), True),
        (_TASK, False),
        (_change(_TASK, containers=[_RUNNING_CONTAINER], lastStatus="RUNNING"), False),
        (_change(_TASK, containers=_end_with(1), group="family:another-migrations"), False),
        (_ROLLOUT, False),
    ],
)
def test_a_failed_migration_is_told_whoever_started_it(
    event: dict[str, Any],
    is_told: bool,
    stacks: dict[str, Template],
) -> None:
    pattern = _find_rule(stacks["Monitoring"], "migration-failed")["EventPattern"]
    assert is_match(pattern, event) is is_told


@pytest.mark.parametrize(
    ("event", "is_replacing"),
    [
        (_change(_TASK, startedBy="by-hand"), True),
        (_change(_TASK, startedBy="by-hand", containers=_end_with(1)), True),
        # The deploy has stopped. The files before the failed one stay applied.
        (_change(_TASK, containers=_end_with(1)), True),
        # The deploy goes on with the stack Pooling.
        (_TASK, False),
        (_change(_TASK, startedBy="by-hand", lastStatus="RUNNING"), False),
        (_change(_TASK, startedBy="by-hand", group="family:other"), False),
        (_ROLLOUT, False),
    ],
)
def test_a_migration_that_no_deploy_follows_replaces_pgbouncers_tasks(
    event: dict[str, Any],
    is_replacing: bool,
    stacks: dict[str, Template],
) -> None:
    template = stacks["Pooling"]
    rule = _find_renewal(template)
    assert is_match(rule["EventPattern"], event) is is_replacing
    ((function_id, function),) = (
        (name, found)
        for name, found in find(template, "AWS::Lambda::Function").items()
        if found["FunctionName"] == names.renewal_function(STAGING)
    )
    assert function["Handler"] == "renew_tasks.handler.handler"
    assert [target["Arn"] for target in rule["Targets"]] == [{"Fn::GetAtt": [function_id, "Arn"]}]


def test_where_no_migration_runs_only_the_schedule_replaces_pgbouncers_tasks(
    stacks: dict[str, Template],
) -> None:
    """Flyway's tasks and their events are in the primary region."""
    for role, count in (("Pooling", 1), ("Recovery", 0)):
        groups = [
            rule["EventPattern"]["detail"]["group"]
            for rule in find(stacks[role], _RULE).values()
            if "group" in rule.get("EventPattern", {}).get("detail", {})
        ]
        assert groups == [[f"family:{names.migrations(STAGING)}"]] * count


def test_a_person_starts_flyway_with_the_mark_that_the_rule_looks_for(
    stacks: dict[str, Template],
) -> None:
    commands = {
        parameter["Name"]: "".join(map(str, _flatten(parameter["Value"])))
        for parameter in find(stacks["Migrations"], "AWS::SSM::Parameter").values()
    }
    assert commands.keys() == {names.command(STAGING, "migrate"), names.command(STAGING, "repair")}
    for command in commands.values():
        assert " --started-by by-hand " in command
        assert len(command) < 4096 / 2  # SSM takes 4096 characters. References get longer.
    assert '"command":["repair"]' in commands[names.command(STAGING, "repair")]


def _flatten(value: Any) -> list[Any]:  # noqa: ANN401
    if isinstance(value, dict) and "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        return [
            found
            for number, part in enumerate(parts)
            for found in ([separator] if number and separator else []) + _flatten(part)
        ]
    return [value]


def test_a_rule_without_a_target_does_not_exist(synthesis: Synthesis) -> None:
    """Its metrics would be the only trace of its events."""
    for template in synthesis.templates.values():
        for rule in find(template, _RULE).values():
            assert rule["Targets"]


@pytest.mark.parametrize(
    ("role", "subject"),
    [
        ("Monitoring", "migration-failed"),
        ("Monitoring", "rollout-failed"),
        ("Recovery", "rollout-failed"),
    ],
)
def test_a_mail_about_an_event_says_what_happened_and_what_to_do(
    role: str, subject: str, stacks: dict[str, Template]
) -> None:
    template = stacks[role]
    (target,) = _find_rule(template, subject)["Targets"]
    assert target["Arn"] == {"Ref": next(iter(find(template, "AWS::SNS::Topic")))}
    transformer = target["InputTransformer"]
    lines = transformer["InputTemplate"].splitlines()
    # EventBridge takes a line only as a JSON string.
    said = [json.loads(line) for line in lines]
    assert said[0].startswith(f"cloudflow-staging-{subject}, <time>")
    assert transformer["InputPathsMap"]["time"] == "$.time"
    assert any(line.startswith("What ECS says: <") for line in said)
    assert "First command:" in said
    # EventBridge replaces <name> by a part of the event, and nothing else is one.
    assert set(re.findall("<([^>]*)>", "".join(said))) == transformer["InputPathsMap"].keys()
    assert said[-1] == f"Runbook: docs/runbook.md#{subject}"


@each_environment
@pytest.mark.parametrize("is_recovery_promoted", [False, True])
def test_the_events_of_every_instance_reach_people(
    settings: EnvironmentSettings,
    is_recovery_promoted: bool,
) -> None:
    templates = build_once(settings.name, is_recovery_promoted=is_recovery_promoted)
    told: dict[str, set[str]] = {}
    for role in ("Monitoring", "Recovery"):
        topic = {"Ref": next(iter(find(templates[role], "AWS::SNS::Topic")))}
        for subscription in find(templates[role], "AWS::RDS::EventSubscription").values():
            assert subscription["SnsTopicArn"] == topic
            assert subscription["SourceType"] == "db-instance"
            for instance in subscription["SourceIds"]:
                told.setdefault(instance, set()).update(subscription["EventCategories"])
    instances = {
        instance["DBInstanceIdentifier"]
        for role in ("Database", "Recovery")
        for instance in find(templates[role], "AWS::RDS::DBInstance").values()
    }
    assert told.keys() == instances
    for categories in told.values():
        assert categories >= {
            "failover",
            "failure",
            "low storage",
            "maintenance",
            "read replica",
            "security patching",
        }
    for writer in (names.primary(settings), names.recovery_replica(settings)):
        assert "backup" in told[writer]


def test_rds_subscribes_when_the_instance_and_the_topics_policy_are_there(
    stacks: dict[str, Template],
) -> None:
    template = stacks["Recovery"]
    needed = {*find(template, "AWS::RDS::DBInstance"), *find(template, "AWS::SNS::TopicPolicy")}
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::RDS::EventSubscription":
            assert needed <= set(resource["DependsOn"])


@each_environment
@pytest.mark.parametrize("role", ["Monitoring", "Recovery"])
def test_every_publisher_may_use_the_topic_and_its_key(
    settings: EnvironmentSettings, role: str, synthesis: Synthesis
) -> None:
    template = synthesis.templates[names.stack(settings, role)]
    ((key_id, key),) = find(template, "AWS::KMS::Key").items()
    assert only(template, "AWS::SNS::Topic")["KmsMasterKeyId"] == {"Fn::GetAtt": [key_id, "Arn"]}
    publishing = _list_statements(
        only(template, "AWS::SNS::TopicPolicy")["PolicyDocument"], "sns:Publish"
    )
    encrypting = _list_statements(key["KeyPolicy"], "kms:GenerateDataKey*")
    services = {"cloudwatch.amazonaws.com", "events.amazonaws.com", "events.rds.amazonaws.com"}
    assert publishing.keys() == encrypting.keys() == services
    # No other account may send mails through RDS or CloudWatch. EventBridge has no such condition.
    for service in services - {"events.amazonaws.com"}:
        condition = publishing[service]["Condition"]
        assert condition == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}


def _list_statements(policy: dict[str, Any], action: str) -> dict[str, dict[str, Any]]:
    """The statements that let a service do this, by service."""
    return {
        statement["Principal"]["Service"]: statement
        for statement in policy["Statement"]
        if statement["Effect"] == "Allow"
        and "Service" in statement["Principal"]
        and action in statement["Action"]
    }

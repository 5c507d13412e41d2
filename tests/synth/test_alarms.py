"""The alarms: which there are, whom they reach, and what their texts say."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import jmespath
import pytest
from botocore import xform_name
from pglast import ast, parse_sql

from stacks.environments import ENVIRONMENTS, STAGING
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings
from tests.support.synthesis import Synthesis
from tests.support.templates import build_once, build_templates, each_environment, find, only

_ALARM = "AWS::CloudWatch::Alarm"
_OF_AN_INSTANCE = {"cpu", "memory", "storage", "storage-trend", "connections"}
_OF_A_REGION = {"backup-age", "backup-depth", "snapshot-age", "snapshot-window", "secret-copies"}
_FURTHER = {
    "primary-slot-lag",
    "primary-transaction-ids",
    "recovery-lag",
    "pooler-down",
    "pooler-running",
    "pooler-unhealthy",
    "pooler-waiting",
    "pooler-metrics",
    "pooler-refusing",
    "rotation-failed",
    "renewal-failed",
    "storage-size-failed",
}
_IN_BOTH_REGIONS = {"renewal-failed", "storage-size-failed"}
_INSTANCE = re.compile(r"^(primary|replica-\d+|recovery)-")
_TEXT = re.compile(
    r"(?P<problem>.+\.)\n\n"
    r"First command(, in psql on (?P<psql_on>[a-z0-9-]+))?:\n(?P<command>.+)\n\n"
    r"If you wait:\n(?P<waiting>.+\.)\n\n"
    r"Runbook: docs/runbook\.md#(?P<anchor>[a-z-]+)"
)
_TEXT_MAXIMUM = 1024  # characters (CloudWatch, PutMetricAlarm)
# `aws logs tail` is a command of the CLI itself and no call of the API.
_TAIL_OPTIONS = {"--region", "--since", "--filter-pattern"}


def _collect(templates: dict[str, Any], settings: EnvironmentSettings) -> dict[str, dict[str, Any]]:
    """The alarms of an environment, by the end of their names. `templates` is by role."""
    return {
        alarm["AlarmName"].removeprefix(names.alarm(settings, "")): alarm
        for role in ("Monitoring", "Recovery")
        for alarm in find(templates[role], _ALARM).values()
    }


@pytest.fixture(scope="module")
def texts(synthesis: Synthesis) -> dict[str, re.Match[str]]:
    """The parts of every alarm's text, by the alarm's whole name.

    An alarm that both regions have is here once.
    """
    found: dict[str, re.Match[str]] = {}
    for template in synthesis.templates.values():
        for alarm in find(template, _ALARM).values():
            match = _TEXT.fullmatch(alarm["AlarmDescription"])
            assert match, alarm["AlarmDescription"]
            found[alarm["AlarmName"]] = match
    expected = set[str]()
    for settings in ENVIRONMENTS:
        expected |= {names.alarm(settings, name) for name in _expect(settings)}
    assert found.keys() == expected
    return found


def _expect(settings: EnvironmentSettings) -> set[str]:
    """The ends of the names of an environment's alarms."""
    replicas = [f"replica-{number}" for number in range(1, settings.replicas + 1)]
    instances = ("primary", *replicas, "recovery")
    return (
        {f"{instance}-{what}" for instance in instances for what in _OF_AN_INSTANCE}
        | {f"{place}-{what}" for place in ("primary", "recovery") for what in _OF_A_REGION}
        | {f"{replica}-lag" for replica in replicas}
        | _FURTHER
    )


@each_environment
@pytest.mark.parametrize("role", ["Monitoring", "Recovery"])
def test_every_alarm_reaches_a_person(
    settings: EnvironmentSettings, role: str, synthesis: Synthesis
) -> None:
    template = synthesis.templates[names.stack(settings, role)]
    ((topic_id, topic),) = find(template, "AWS::SNS::Topic").items()
    for alarm in find(template, _ALARM).values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": topic_id}]
        assert len(alarm["AlarmDescription"]) > 60
    (subscription,) = find(template, "AWS::SNS::Subscription").values()
    assert subscription["Endpoint"] == settings.alarm_email
    key_id = topic["KmsMasterKeyId"]["Fn::GetAtt"][0]
    statements = find(template, "AWS::KMS::Key")[key_id]["KeyPolicy"]["Statement"]
    policies = only(template, "AWS::SNS::TopicPolicy")["PolicyDocument"]["Statement"]
    for allowed, action in ((statements, "kms:GenerateDataKey*"), (policies, "sns:Publish")):
        assert any(
            statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
            and action in statement["Action"]
            for statement in allowed
        )


@each_environment
def test_what_can_run_out_or_fall_silent_has_an_alarm(settings: EnvironmentSettings) -> None:
    alarms = _collect(build_once(settings.name, is_recovery_promoted=False), settings)
    expected = _expect(settings)
    assert alarms.keys() == expected
    for silent in (
        *(name for name in expected if name.endswith(tuple(_OF_A_REGION))),
        "pooler-waiting",
        "pooler-metrics",
        "pooler-down",
        "pooler-running",
        "replica-1-lag",
        "primary-storage",
        "storage-size-failed",
        "renewal-failed",
    ):
        assert alarms[silent]["TreatMissingData"] == "breaching"
    # A rotation runs once a month.
    assert alarms["rotation-failed"]["TreatMissingData"] == "notBreaching"
    for scheduled in ("storage-size-failed", "renewal-failed"):
        alarm = alarms[scheduled]
        (query,) = alarm["Metrics"]
        # The schedule is not exact: one missed run is no silence.
        assert query["MetricStat"]["Period"] * alarm["EvaluationPeriods"] == 3 * 300
    # Nothing repeats the run that follows a migration.
    assert alarms["renewal-failed"]["EvaluationPeriods"] == 1
    # The replicas of an idle primary show up to 300 s.
    assert alarms["replica-1-lag"]["Threshold"] > 300


@each_environment
@pytest.mark.parametrize("is_recovery_promoted", [False, True])
def test_both_regions_tell_when_pgbouncers_tasks_cannot_be_renewed(
    settings: EnvironmentSettings, is_recovery_promoted: bool
) -> None:
    templates = build_once(settings.name, is_recovery_promoted=is_recovery_promoted)
    for role, region in (("Monitoring", settings.primary), ("Recovery", settings.recovery)):
        alarms = _collect(
            {"Monitoring": {"Resources": {}}, "Recovery": {"Resources": {}}}
            | {role: templates[role]},
            settings,
        )
        assert alarms.keys() >= _IN_BOTH_REGIONS
        for name in _IN_BOTH_REGIONS:
            assert f"--region {region.name} " in alarms[name]["AlarmDescription"]


@each_environment
def test_after_the_second_deploy_the_recovery_region_has_the_alarms_of_a_primary(
    settings: EnvironmentSettings,
) -> None:
    templates = build_once(settings.name, is_recovery_promoted=True, is_recovery_completed=True)
    alarms = _collect(templates, settings)
    assert alarms.keys() >= {
        "recovery-slot-lag",
        "recovery-transaction-ids",
        "recovery-backup-age",
        "recovery-snapshot-window",
        "pooler-down",
    }
    assert not alarms.keys() & {"recovery-lag", "primary-secret-copies", "recovery-secret-copies"}
    instance = names.recovery_replica(settings)
    assert f"in psql on {instance}:" in alarms["pooler-waiting"]["AlarmDescription"]
    assert f"--region {settings.recovery.name} " in alarms["pooler-down"]["AlarmDescription"]


def _fires(alarm: dict[str, Any], values: dict[str, float | None], rate: float = 0) -> bool:
    """Whether the alarm fires. `values` has the metrics by id, `rate` is that of every series."""
    known: dict[str, Any] = {
        "FILL": lambda value, other: other if value is None else value,
        "REPEAT": None,
        "RATE": lambda _series: rate,
        **values,
    }
    result: float | None = None
    queries = [it for it in alarm["Metrics"] if "Expression" in it]
    for query in sorted(queries, key=lambda it: it.get("ReturnData", True)):
        # CloudWatch evaluates a whole series, and here is one point of it.
        expression = re.sub(r"^IF\((.+), (.+), (.+)\)$", r"(\2) if \1 else \3", query["Expression"])
        result = known[query["Id"]] = float(eval(expression, {}, known))
    assert result is not None
    assert alarm["ComparisonOperator"] == "LessThanThreshold"
    return result < float(alarm["Threshold"])


@each_environment
def test_storage_alarms_follow_the_size_that_a_disk_has_and_may_get(
    settings: EnvironmentSettings,
) -> None:
    gib = 2**30
    alarms = _collect(build_once(settings.name, is_recovery_promoted=False), settings)
    first, maximum = settings.storage_gib, settings.storage_maximum_gib
    for instance in ("primary", "replica-1", "recovery"):
        storage = alarms[f"{instance}-storage"]
        for size in (first, 2 * first, maximum):
            # RDS enlarges the disk when less than 10 % is free.
            enough = {"free": 0.09 * size * gib, "size": size * gib}
            assert not _fires(storage, enough)
            assert _fires(storage, enough | {"free": 0.04 * size * gib})
        # A share of the first size would be silent here.
        assert 0.04 * maximum > 0.05 * first
        # Without the size, the alarm fires early and not late.
        assert _fires(storage, {"free": 0.04 * maximum * gib, "size": None})

        trend, a_gib_an_hour = alarms[f"{instance}-storage-trend"], gib / 3600
        # The disk is almost full, and RDS can still enlarge it for 72 hours at this rate.
        assert not _fires(trend, {"free": gib, "size": first * gib}, rate=a_gib_an_hour)
        full = {"free": 50 * gib, "size": maximum * gib}
        assert _fires(trend, full, rate=a_gib_an_hour)
        assert not _fires(trend, full, rate=0)
        assert not _fires(trend, full, rate=-a_gib_an_hour)


@each_environment
@pytest.mark.parametrize("role", ["Monitoring", "Recovery"])
def test_the_size_of_every_disk_that_an_alarm_reads_is_measured(
    settings: EnvironmentSettings, role: str
) -> None:
    template = build_once(settings.name, is_recovery_promoted=False)[role]
    name = names.storage_size_function(settings)
    (function,) = (
        it
        for it in find(template, "AWS::Lambda::Function").values()
        if it.get("FunctionName") == name
    )
    variables = function["Environment"]["Variables"]
    read = {
        (metric["Namespace"], metric["MetricName"], metric["Dimensions"][0]["Value"])
        for alarm in find(template, _ALARM).values()
        for query in alarm.get("Metrics", [])
        if "MetricStat" in query
        and (metric := query["MetricStat"]["Metric"])["MetricName"] == variables["METRIC"]
    }
    assert read == {
        (variables["NAMESPACE"], variables["METRIC"], identifier)
        for identifier in variables["INSTANCES"].split(",")
    }


def test_every_alarm_links_to_its_heading_in_the_runbook(texts: dict[str, re.Match[str]]) -> None:
    for settings in ENVIRONMENTS:
        prefix = names.alarm(settings, "")
        for name, text in texts.items():
            if name.startswith(prefix):
                assert text["anchor"] == _INSTANCE.sub("", name.removeprefix(prefix))


def test_every_text_fits_into_cloudwatchs_limit_for_the_longest_names() -> None:
    label = "a" * 63
    settings = replace(STAGING, name="e" * 15, host_name=f"{label}.{label}.{label}.internal")
    for is_promoted in (False, True):
        templates = build_templates(
            replace(
                settings,
                is_recovery_promoted=is_promoted,
                is_recovery_completed=is_promoted,
                recovery_pooler_tasks=1,
            )
        )
        alarms = _collect(templates, settings)
        assert alarms
        for alarm in alarms.values():
            assert len(alarm["AlarmDescription"]) <= _TEXT_MAXIMUM


def _list_names(settings: EnvironmentSettings, synthesis: Synthesis) -> Iterator[str]:
    """The physical names of an environment's resources, as far as the templates have them."""
    for role in ("Database", "Migrations", "Pooling", "Recovery"):
        template = synthesis.templates[names.stack(settings, role)]
        for resource in template["Resources"].values():
            for key, value in resource.get("Properties", {}).items():
                if isinstance(value, str) and (key.endswith("Name") or key.endswith("Identifier")):
                    yield value


@each_environment
def test_every_command_names_resources_that_exist(
    settings: EnvironmentSettings, texts: dict[str, re.Match[str]], synthesis: Synthesis
) -> None:
    known = set(_list_names(settings, synthesis))
    known |= {f"/aws/lambda/{name}" for name in known}
    for name, text in texts.items():
        if not name.startswith(names.alarm(settings, "")):
            continue
        if text["psql_on"]:
            assert text["psql_on"] in known
            continue
        mentioned = [word for word in shlex.split(text["command"]) if settings.name in word]
        assert mentioned, text["command"]
        assert set(mentioned) <= known, text["command"]


def test_every_command_is_one_that_psql_or_the_aws_cli_takes(
    texts: dict[str, re.Match[str]],
) -> None:
    kinds: set[str] = set()
    for text in texts.values():
        if text["psql_on"]:
            (statement,) = parse_sql(text["command"])
            assert isinstance(statement.stmt, ast.SelectStmt)
            assert text["command"].endswith(";")
            kinds.add("psql")
        else:
            program, service, command, *arguments = shlex.split(text["command"])
            assert program == "aws"
            _check_aws_command(service, command, arguments)
            kinds.add(f"{service} {command}")
    assert kinds == {
        "psql",
        "ecs describe-services",
        "logs tail",
        "rds describe-db-instances",
    }


def _check_aws_command(service: str, command: str, arguments: list[str]) -> None:
    if (service, command) == ("logs", "tail"):
        assert arguments[0].startswith("/")
        assert set(arguments[1::2]) <= _TAIL_OPTIONS
        return
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert options.pop("--region") in {"us-east-1", "us-west-2"}
    jmespath.compile(options.pop("--query"))
    model = boto3.client(service, region_name="us-east-1").meta.service_model
    (operation,) = (name for name in model.operation_names if xform_name(name, "-") == command)
    shape = model.operation_model(operation).input_shape
    known = {f"--{xform_name(member, '-')}" for member in shape.members}
    required = {f"--{xform_name(member, '-')}" for member in shape.required_members}
    assert required <= options.keys() <= known

"""Alarms that are removed, or that notice a fault later or not at all."""

from collections.abc import Iterator

from stacks.review.differences import PropertyChange, ResourceChange
from stacks.review.verdicts import Effect, Severity, Verdict, build_verdict

ALARM = "AWS::CloudWatch::Alarm"
# These resources carry an alarm to a person.
_CARRIERS = {
    "AWS::SNS::Subscription": "Alarms no longer reach this address",
    "AWS::SNS::Topic": "Alarms no longer reach anybody",
    "AWS::RDS::EventSubscription": "Events of the databases no longer reach anybody",
    "AWS::Events::Rule": "Events of this rule no longer start anything",
    "AWS::Logs::MetricFilter": "The metric gets no values, so its alarm cannot see a fault",
    "AWS::EC2::FlowLog": "Connections of this network are no longer recorded",
}
KINDS = {ALARM, *_CARRIERS}

_SLOWER = ("DatapointsToAlarm", "EvaluationPeriods", "Period")
_TEXTS = ("AlarmDescription", "AlarmName", "Tags")
_ACTIONS = ("AlarmActions", "InsufficientDataActions", "OKActions")
_COMPARED = ("ActionsEnabled", "Threshold", "TreatMissingData", *_SLOWER, *_TEXTS, *_ACTIONS)


def judge_alarm(change: ResourceChange) -> Iterator[Verdict]:
    if change.new is None and change.old is not None:
        consequence = _CARRIERS.get(change.kind, "Nobody is told about this fault any more")
        yield _build(change, "is removed", consequence, is_weaker=True)
        return
    if change.old is None:
        return
    if change.kind == ALARM:
        yield from _judge_properties(change)
        return
    for changed in change.properties:
        if changed.name == "State":
            is_off = changed.new == "DISABLED"
            yield _build(change, str(changed), _CARRIERS[change.kind], is_weaker=is_off)


def _judge_properties(change: ResourceChange) -> Iterator[Verdict]:
    """If the metric changes, no rule can compare the rest. That makes one verdict."""
    is_other_metric = any(changed.name not in _COMPARED for changed in change.properties)
    if is_other_metric:
        yield _build(
            change,
            "; ".join(str(one) for one in change.properties if one.name not in _TEXTS),
            "It measures something else. Check that it still notices the fault",
            is_weaker=True,
        )
    for changed in change.properties:
        if not is_other_metric or changed.name in _TEXTS:
            yield _judge_property(change, changed)


def _judge_property(change: ResourceChange, changed: PropertyChange) -> Verdict:
    match changed.name:
        case "Threshold":
            return _judge_threshold(change, changed)
        case name if name in _SLOWER:
            is_slower = _count(changed.new) > _count(changed.old)
            text = "It waits longer before it tells anybody"
            return _build(change, str(changed), text, is_weaker=is_slower)
        case "TreatMissingData":
            is_blind = changed.old == "breaching"
            text = "If the metric has no values, the alarm stays silent"
            return _build(change, str(changed), text, is_weaker=is_blind)
        case "ActionsEnabled":
            is_off = str(changed.new).lower() == "false"
            return _build(change, str(changed), "It tells nobody", is_weaker=is_off)
        case name if name in _ACTIONS:
            lost = [action for action in changed.old or [] if action not in (changed.new or [])]
            return _build(
                change, str(changed), "It no longer tells this receiver", is_weaker=bool(lost)
            )
    return build_verdict(
        change,
        effect=Effect.CHANGED,
        severity=Severity.NOTE,
        change=str(changed),
        consequence="The alarm says something else. It notices the same faults.",
    )


def _judge_threshold(change: ResourceChange, changed: PropertyChange) -> Verdict:
    comparison = str((change.new or {}).get("Properties", {}).get("ComparisonOperator", ""))
    is_higher = _count(changed.new) > _count(changed.old)
    is_weaker = is_higher if comparison.startswith("Greater") else not is_higher
    return _build(
        change, str(changed), "It notices the fault later, or not at all", is_weaker=is_weaker
    )


def _count(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return 0


def _build(change: ResourceChange, changed: str, consequence: str, *, is_weaker: bool) -> Verdict:
    return build_verdict(
        change,
        effect=Effect.WEAKENED if is_weaker else Effect.STRENGTHENED,
        severity=Severity.RISK if is_weaker else Severity.NOTE,
        change=changed,
        consequence=f"{consequence}." if is_weaker else "It notices more, or earlier.",
    )

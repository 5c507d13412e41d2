"""Services whose tasks are replaced, and the people who notice."""

from collections.abc import Collection, Iterator

from stacks.review.differences import ResourceChange, StackPair, Template, describe
from stacks.review.references import flatten
from stacks.review.verdicts import Effect, Severity, Verdict

KIND = "AWS::ECS::Service"

# Counted by tests/integration/test_replacing.py (docs/pooling.md#when-a-task-is-replaced).
_REPLACED = (
    "ECS starts the new tasks, then it stops the old ones one by one, four minutes at most for "
    "each. A client that renews its connections within 90 s never notices. Any other client gets "
    "'server shutting down' (08P01) once, between two transactions, and can repeat its transaction"
)


# ECS starts new tasks if one of these properties of a service changes (ECS Developer Guide,
# UpdateService).
_REDEPLOYING = {
    "CapacityProviderStrategy",
    "LaunchType",
    "LoadBalancers",
    "NetworkConfiguration",
    "PlatformVersion",
    "ServiceConnectConfiguration",
    "ServiceRegistries",
    "TaskDefinition",
    "VolumeConfigurations",
}


def is_redeployed(change: ResourceChange) -> bool:
    """Whether ECS starts new tasks because the service itself changes."""
    return (
        change.kind == KIND
        and change.old is not None
        and change.new is not None
        and any(changed.name in _REDEPLOYING for changed in change.properties)
    )


def judge_services(
    pair: StackPair, revised: Collection[str], redeployed: Collection[str]
) -> Iterator[Verdict]:
    """A verdict for each service that gets new tasks.

    `revised` are task definitions with a new revision, and `redeployed` are services that change
    themselves. Both are logical ids.
    """
    for logical_id, resource in pair.new.get("Resources", {}).items():
        properties = resource.get("Properties", {})
        task = flatten(properties.get("TaskDefinition")).strip("${}")
        if resource["Type"] != KIND or logical_id not in pair.old["Resources"]:
            continue
        if task in revised or logical_id in redeployed:
            yield _judge(pair, logical_id, resource)


def _judge(pair: StackPair, logical_id: str, resource: Template) -> Verdict:
    has_tasks = resource["Properties"].get("DesiredCount", 1) != 0
    return Verdict(
        environment=pair.environment,
        stack=pair.stack,
        subject=describe(logical_id, resource),
        effect=Effect.INTERRUPTED if has_tasks else Effect.CHANGED,
        severity=Severity.OUTAGE if has_tasks else Severity.NOTE,
        change="new tasks replace the old ones",
        consequence=f"{_REPLACED}." if has_tasks else "It has no tasks, so nobody notices.",
        # Every deploy with a new schema version or a new image does this.
        is_routine=True,
    )

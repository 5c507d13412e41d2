"""Labelled mutations of this project's templates, each with the verdict that a review must give.

An edit changes the recorded templates of staging, or of production where a window matters. It finds
its resource by type and property, so that it holds for later templates too.
"""

import copy
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stacks.review.base import SNAPSHOTS
from stacks.review.differences import Template
from stacks.review.template_text import read_comparable
from stacks.review.verdicts import Effect, Severity
from tests.support.synthesis import PROJECT

Templates = dict[str, Template]
Edit = Callable[[Templates], None]

INSTANCE = "AWS::RDS::DBInstance"
PARAMETERS = "AWS::RDS::DBParameterGroup"
ALARM = "AWS::CloudWatch::Alarm"
TASK = "AWS::ECS::TaskDefinition"
SERVICE = "AWS::ECS::Service"
POLICY = "AWS::IAM::Policy"
ROLE = "AWS::IAM::Role"
INGRESS = "AWS::EC2::SecurityGroupIngress"


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One change and its worst verdict. `words` are in that verdict's texts.

    `others` are the effects of all other verdicts, as a sorted list without repetition.
    """

    name: str
    edit: Edit
    effect: Effect
    severity: Severity
    words: tuple[str, ...]
    others: tuple[Effect, ...] = field(default=())
    environment: str = "Staging"


def read_recorded(environment: str) -> Templates:
    """The recorded templates of an environment, by the stack's full name."""
    return {
        path.stem: read_comparable(path.read_text(encoding="utf-8"))
        for path in sorted((PROJECT / SNAPSHOTS).glob(f"CloudFlow-{environment}-*.json"))
    }


def mutate(mutation: Mutation, recorded: Templates) -> Templates:
    changed = copy.deepcopy(recorded)
    mutation.edit(changed)
    return changed


def find(
    templates: Templates, role: str, kind: str, is_wanted: Callable[[dict[str, Any]], bool]
) -> tuple[dict[str, Any], str]:
    """The resources of a stack, and the logical id of the first one that is wanted."""
    for name, template in templates.items():
        resources = template["Resources"]
        for logical_id, resource in resources.items():
            if (
                name.endswith(f"-{role}")
                and resource["Type"] == kind
                and is_wanted(resource.get("Properties", {}))
            ):
                return resources, logical_id
    raise AssertionError(f"{role} has no such {kind}")


def is_primary(properties: dict[str, Any]) -> bool:
    return "SourceDBInstanceIdentifier" not in properties


def is_anything(_: dict[str, Any]) -> bool:
    return True


def _is_primary_group(properties: dict[str, Any]) -> bool:
    return "primary" in properties["Description"]


def _is_replica_group(properties: dict[str, Any]) -> bool:
    return "primary" not in properties["Description"]


def edit(
    role: str,
    kind: str,
    is_wanted: Callable[[dict[str, Any]], bool] = is_anything,
    **values: Any,  # noqa: ANN401
) -> Edit:
    """Set properties of one resource. None removes a property."""

    def apply(templates: Templates) -> None:
        resources, logical_id = find(templates, role, kind, is_wanted)
        properties = resources[logical_id]["Properties"]
        for name, value in values.items():
            if value is None:
                del properties[name]
            else:
                properties[name] = value

    return apply


def _primary(**values: Any) -> Edit:  # noqa: ANN401
    return edit("Database", INSTANCE, is_primary, **values)


def _parameter(name: str, value: str, *, is_wanted: Any = _is_primary_group) -> Edit:  # noqa: ANN401
    def apply(templates: Templates) -> None:
        resources, logical_id = find(templates, "Database", PARAMETERS, is_wanted)
        resources[logical_id]["Properties"]["Parameters"][name] = value

    return apply


def _remove(
    role: str, kind: str, is_wanted: Callable[[dict[str, Any]], bool] = is_anything
) -> Edit:
    def apply(templates: Templates) -> None:
        resources, logical_id = find(templates, role, kind, is_wanted)
        del resources[logical_id]

    return apply


def _rename(
    role: str, kind: str, is_wanted: Callable[[dict[str, Any]], bool] = is_anything
) -> Edit:
    def apply(templates: Templates) -> None:
        resources, logical_id = find(templates, role, kind, is_wanted)
        resources["Renamed0A1B2C3D"] = resources.pop(logical_id)

    return apply


def _move(role: str, new_role: str, kind: str) -> Edit:
    def apply(templates: Templates) -> None:
        resources, logical_id = find(templates, role, kind, is_anything)
        (target,) = (t for name, t in templates.items() if name.endswith(f"-{new_role}"))
        target["Resources"]["Moved0A1B2C3D"] = resources.pop(logical_id)

    return apply


def _add(role: str, **resource: Any) -> Edit:  # noqa: ANN401
    def apply(templates: Templates) -> None:
        (template,) = (t for name, t in templates.items() if name.endswith(f"-{role}"))
        template["Resources"]["Added0A1B2C3D"] = resource

    return apply


def _open_port(source: str) -> Edit:
    return _add(
        "Pooling",
        Type=INGRESS,
        Properties={
            "GroupId": "sg-1",
            "IpProtocol": "tcp",
            "FromPort": 5432,
            "ToPort": 5432,
            "CidrIp": source,
        },
    )


def _policy_of(kind: str, name: str, role: str) -> Edit:
    """Remove a policy document's last statement."""

    def apply(templates: Templates) -> None:
        resources, logical_id = find(templates, role, kind, lambda p: len(p[name]["Statement"]) > 1)
        resources[logical_id]["Properties"][name]["Statement"].pop()

    return apply


def _widen_action(templates: Templates) -> None:
    resources, logical_id = find(templates, "Pooling", POLICY, is_anything)
    statement = resources[logical_id]["Properties"]["PolicyDocument"]["Statement"][0]
    statement["Action"] = "*"
    statement["Resource"] = "*"


def _trust_anybody(templates: Templates) -> None:
    resources, logical_id = find(templates, "Pooling", ROLE, is_anything)
    document = resources[logical_id]["Properties"]["AssumeRolePolicyDocument"]
    document["Statement"][0]["Principal"] = {"AWS": "*"}


def _widen_key(templates: Templates) -> None:
    resources, logical_id = find(templates, "Database", "AWS::KMS::Key", is_anything)
    resources[logical_id]["Properties"]["KeyPolicy"]["Statement"].append(
        {
            "Effect": "Allow",
            "Action": "kms:Decrypt",
            "Principal": {"AWS": "arn:aws:iam::222222222222:root"},
            "Resource": "*",
        }
    )


def _manage_policy(templates: Templates) -> None:
    resources, logical_id = find(templates, "Pooling", ROLE, is_anything)
    resources[logical_id]["Properties"]["ManagedPolicyArns"] = [
        "arn:aws:iam::aws:policy/AdministratorAccess"
    ]


def _set_ini(name: str, value: str) -> Edit:
    """Change one line of pgbouncer.ini in every template."""

    def apply(templates: Templates) -> None:
        for role, template in templates.items():
            text = json.dumps(template)
            templates[role] = json.loads(
                re.sub(rf"(?<=[\"\\n]){name} = \w+", f"{name} = {value}", text)
            )

    return apply


def _image(templates: Templates) -> None:
    resources, logical_id = find(templates, "Pooling", TASK, is_anything)
    container = resources[logical_id]["Properties"]["ContainerDefinitions"][0]
    container["Image"] = "registry.example/pgbouncer:2"


def _schema_version(templates: Templates) -> None:
    resources, logical_id = find(templates, "Pooling", TASK, is_anything)
    for container in resources[logical_id]["Properties"]["ContainerDefinitions"]:
        container["DockerLabels"] = {"cloudflow.schema-version": "99"}


def _policy(name: str, value: str, *, role: str = "Database", kind: str = INSTANCE) -> Edit:
    def apply(templates: Templates) -> None:
        resources, logical_id = find(templates, role, kind, is_anything)
        resources[logical_id][name] = value

    return apply


def _both(*edits: Edit) -> Edit:
    def apply(templates: Templates) -> None:
        for one in edits:
            one(templates)

    return apply


def _is_greater(properties: dict[str, Any]) -> bool:
    return str(properties["ComparisonOperator"]).startswith("GreaterThan")


def _is_less(properties: dict[str, Any]) -> bool:
    return str(properties["ComparisonOperator"]).startswith("LessThan")


def _is_breaching(properties: dict[str, Any]) -> bool:
    return bool(properties.get("TreatMissingData") == "breaching")


def _promote(templates: Templates) -> None:
    resources, logical_id = find(templates, "Recovery", INSTANCE, is_anything)
    del resources[logical_id]["Properties"]["SourceDBInstanceIdentifier"]


def _publish_tasks(templates: Templates) -> None:
    resources, logical_id = find(templates, "Pooling", SERVICE, is_anything)
    network = resources[logical_id]["Properties"]["NetworkConfiguration"]
    network["AwsvpcConfiguration"]["AssignPublicIp"] = "ENABLED"


def _tag(templates: Templates) -> None:
    for name, template in templates.items():
        for resource in template["Resources"].values():
            if name.endswith("-Monitoring") and resource["Type"] == ALARM:
                tags = resource["Properties"].setdefault("Tags", [])
                tags.append({"Key": "costs", "Value": "database"})


def _transform(templates: Templates) -> None:
    next(iter(templates.values()))["Transform"] = "Macro"


def _forget_output(templates: Templates) -> None:
    for name, template in templates.items():
        if name.endswith("-Network"):
            template["Outputs"].popitem()


def _narrow_cidr(templates: Templates) -> None:
    """An administrator's group may reach everything; now one network."""
    resources, logical_id = find(
        templates,
        "Database",
        "AWS::EC2::SecurityGroup",
        lambda p: any(r.get("CidrIp") == "0.0.0.0/0" for r in p.get("SecurityGroupEgress", [])),
    )
    resources[logical_id]["Properties"]["SecurityGroupEgress"][0]["CidrIp"] = "10.0.0.0/8"


DANGER, OUTAGE, RISK, NOTE = Severity

MUTATIONS = (
    # Replaced, deleted, renamed, moved
    Mutation(
        name="the primary gets another identifier",
        edit=_primary(DBInstanceIdentifier="cloudflow-staging-main"),
        effect=Effect.REPLACED,
        severity=DANGER,
        words=(
            "users, workflows and executions",
            "empty database",
            "refer to it",
            "cloudflow-staging-replica-1",
        ),
    ),
    Mutation(
        name="the primary gets another master user",
        edit=_primary(MasterUsername="boss"),
        effect=Effect.REPLACED,
        severity=DANGER,
        words=("already exists", "MasterUsername"),
    ),
    Mutation(
        name="the primary gets another key",
        edit=_primary(KmsKeyId="arn:aws:kms:us-east-1:111111111111:key/other"),
        effect=Effect.REPLACED,
        severity=DANGER,
        words=("KmsKeyId", "users, workflows and executions"),
    ),
    Mutation(
        name="the storage is no longer encrypted",
        edit=_primary(StorageEncrypted=False),
        effect=Effect.REPLACED,
        severity=DANGER,
        words=("StorageEncrypted true -> false",),
        others=(Effect.WIDENED,),
    ),
    Mutation(
        name="the primary's engine changes",
        edit=_primary(Engine="aurora-postgresql"),
        effect=Effect.REPLACED,
        severity=DANGER,
        words=("may replace",),
    ),
    Mutation(
        name="the primary is restored from a snapshot",
        edit=_primary(DBSnapshotIdentifier="before"),
        effect=Effect.REPLACED,
        severity=DANGER,
        words=("DBSnapshotIdentifier nothing -> before",),
    ),
    Mutation(
        name="the replica follows another source",
        edit=edit("Recovery", INSTANCE, SourceDBInstanceIdentifier="arn:other"),
        effect=Effect.REPLACED,
        severity=DANGER,
        words=("SourceDBInstanceIdentifier", "users, workflows and executions"),
    ),
    Mutation(
        name="the primary's construct is renamed",
        edit=_rename("Database", INSTANCE, is_primary),
        effect=Effect.REPLACED,
        severity=DANGER,
        words=("logical id", "already exists", "keeps the old one"),
    ),
    Mutation(
        name="the key's construct is renamed",
        edit=_rename("Database", "AWS::KMS::Key"),
        effect=Effect.REPLACED,
        severity=DANGER,
        words=("all data that this key encrypts",),
    ),
    Mutation(
        name="the load balancer's construct is renamed",
        edit=_rename("Pooling", "AWS::ElasticLoadBalancingV2::LoadBalancer"),
        effect=Effect.REPLACED,
        severity=OUTAGE,
        words=("Clients of PgBouncer cannot connect",),
    ),
    Mutation(
        name="a secret moves to another stack",
        edit=_move("Database", "Pooling", "AWS::SecretsManager::Secret"),
        effect=Effect.REPLACED,
        severity=DANGER,
        words=("in Pooling", "the password that clients use"),
    ),
    Mutation(
        name="the primary leaves the template",
        edit=_remove("Database", INSTANCE, is_primary),
        effect=Effect.DELETED,
        severity=DANGER,
        words=("keeps it in the account", "no stack manages it"),
    ),
    Mutation(
        name="the replica leaves the template",
        edit=_remove("Recovery", INSTANCE),
        effect=Effect.DELETED,
        severity=DANGER,
        words=("users, workflows and executions",),
    ),
    Mutation(
        name="the private zone gets another name",
        edit=edit("Network", "AWS::Route53::HostedZone", Name="other.internal"),
        effect=Effect.REPLACED,
        severity=OUTAGE,
        words=("Clients of PgBouncer cannot connect",),
    ),
    Mutation(
        name="a log group gets another name",
        edit=edit("Database", "AWS::Logs::LogGroup", LogGroupName="/other"),
        effect=Effect.REPLACED,
        severity=DANGER,
        words=("logs",),
    ),
    Mutation(
        name="the schema's custom resource calls another function",
        edit=edit("Migrations", "Custom::Migrations", ServiceToken="arn:other"),
        effect=Effect.REPLACED,
        severity=OUTAGE,
        words=("ServiceToken",),
    ),
    # Restarted, interrupted, in place
    Mutation(
        name="a larger class, applied at once",
        edit=_primary(DBInstanceClass="db.t4g.large"),
        effect=Effect.RESTARTED,
        severity=OUTAGE,
        words=("At once", "All clients of the primary", "some minutes"),
    ),
    Mutation(
        name="a larger class, applied in the window of a Multi-AZ instance",
        edit=_primary(DBInstanceClass="db.m7g.xlarge"),
        environment="Production",
        effect=Effect.RESTARTED,
        severity=OUTAGE,
        words=("In the maintenance window, sun:05:00-sun:06:00 UTC", "60 to 120 s"),
    ),
    Mutation(
        name="a larger class of the replica",
        edit=edit(
            "Database", INSTANCE, lambda p: not is_primary(p), DBInstanceClass="db.t4g.large"
        ),
        effect=Effect.RESTARTED,
        severity=OUTAGE,
        words=("Clients of the read-only database",),
    ),
    Mutation(
        name="another minor version",
        edit=_primary(EngineVersion="15.99"),
        effect=Effect.RESTARTED,
        severity=OUTAGE,
        words=("Upgrade the replicas first", "stops it for that"),
    ),
    Mutation(
        name="another port of the primary",
        edit=_primary(Port="6432"),
        environment="Production",
        effect=Effect.REPLACED,
        severity=DANGER,
        words=("Port 5432 -> 6432", "already exists"),
    ),
    Mutation(
        name="another certificate authority",
        edit=_primary(CACertificateIdentifier="rds-ca-ecc384-g1"),
        effect=Effect.RESTARTED,
        severity=OUTAGE,
        words=("SupportsCertificateRotationWithoutRestart",),
    ),
    Mutation(
        name="another parameter group",
        edit=_primary(DBParameterGroupName="other"),
        effect=Effect.FAILS,  # nobody knows its max_connections
        severity=DANGER,
        words=("of unknown",),
        others=(Effect.WAITS,),
    ),
    Mutation(
        name="the recovery region is promoted",
        edit=_promote,
        effect=Effect.RESTARTED,
        severity=DANGER,
        words=("promotes the replica in place", "cannot be undone"),
    ),
    Mutation(
        name="more storage",
        edit=_primary(AllocatedStorage="60"),
        effect=Effect.CHANGED,
        severity=NOTE,
        words=("No downtime", "6 hours", "At once"),
    ),
    Mutation(
        name="less storage",
        edit=_primary(AllocatedStorage="40"),
        effect=Effect.FAILS,
        severity=DANGER,
        words=("cannot make storage smaller",),
    ),
    Mutation(
        name="a standby",
        edit=_primary(MultiAZ=True),
        effect=Effect.STRENGTHENED,
        severity=NOTE,
        words=("stronger", "No downtime"),
    ),
    Mutation(
        name="another maintenance window",
        edit=_primary(PreferredMaintenanceWindow="mon:05:00-mon:06:00"),
        effect=Effect.CHANGED,
        severity=NOTE,
        words=("mon:05:00-mon:06:00", "new window"),
    ),
    Mutation(
        name="another backup window",
        edit=_primary(PreferredBackupWindow="03:00-03:30"),
        environment="Production",
        effect=Effect.CHANGED,
        severity=NOTE,
        words=("No downtime", "At once"),
    ),
    Mutation(
        name="a property that no rule knows",
        edit=_primary(DedicatedLogVolume=True),
        effect=Effect.UNKNOWN,
        severity=OUTAGE,
        words=("no rule for this property",),
    ),
    # Parameters
    Mutation(
        name="a static parameter is raised",
        edit=_parameter("max_connections", "400"),
        effect=Effect.WAITS,
        severity=OUTAGE,
        words=("reboot the replicas in both regions, then the primary", "docs/deploy.md#reboots"),
        others=(Effect.CHANGED,),
    ),
    Mutation(
        name="a static parameter is lowered",
        edit=_parameter("max_wal_senders", "10"),
        effect=Effect.WAITS,
        severity=OUTAGE,
        words=("reboot the primary, then the replicas",),
    ),
    Mutation(
        name="a static parameter without an order",
        edit=_parameter("shared_preload_libraries", "auto_explain"),
        effect=Effect.WAITS,
        severity=OUTAGE,
        words=("reboot the instances",),
    ),
    Mutation(
        name="a dynamic parameter",
        edit=_parameter("random_page_cost", "1.5"),
        effect=Effect.CHANGED,
        severity=NOTE,
        words=("at once", "Nobody is disconnected"),
    ),
    Mutation(
        name="max_connections below the budget",
        edit=_parameter("max_connections", "90"),
        effect=Effect.FAILS,
        severity=DANGER,
        words=("connection budget", "of 300", "of 90"),
        others=(Effect.WAITS,),
    ),
    Mutation(
        name="connections without TLS",
        edit=_parameter("rds.force_ssl", "0", is_wanted=_is_replica_group),
        effect=Effect.WIDENED,
        severity=RISK,
        words=("without TLS", "rds.force_ssl 1 -> 0", "at once"),
    ),
    # Access
    Mutation(
        name="a port for the whole internet",
        edit=_open_port("0.0.0.0/0"),
        effect=Effect.WIDENED,
        severity=RISK,
        words=("port 5432 (tcp) from 0.0.0.0/0",),
        others=(Effect.ADDED,),
    ),
    Mutation(
        name="a closed port",
        edit=_remove("Pooling", INGRESS),
        effect=Effect.NARROWED,
        severity=RISK,
        words=("can no longer connect",),
    ),
    Mutation(
        name="a narrower range of addresses",
        edit=_narrow_cidr,
        effect=Effect.NARROWED,
        severity=RISK,
        words=("closes all ports",),
    ),
    Mutation(
        name="a public address",
        edit=_primary(PubliclyAccessible=True),
        effect=Effect.WIDENED,
        severity=RISK,
        words=("public address",),
    ),
    Mutation(
        name="every action on everything",
        edit=_widen_action,
        effect=Effect.WIDENED,
        severity=RISK,
        words=("allows * on *",),
    ),
    Mutation(
        name="anybody may become a role",
        edit=_trust_anybody,
        effect=Effect.WIDENED,
        severity=RISK,
        words=("sts:AssumeRole for *",),
    ),
    Mutation(
        name="another account may use the key",
        edit=_widen_key,
        effect=Effect.WIDENED,
        severity=RISK,
        words=("kms:Decrypt", "222222222222"),
    ),
    Mutation(
        name="a managed policy",
        edit=_manage_policy,
        effect=Effect.WIDENED,
        severity=RISK,
        words=("AdministratorAccess",),
    ),
    Mutation(
        name="a removed grant",
        edit=_policy_of(POLICY, "PolicyDocument", "Migrations"),
        effect=Effect.NARROWED,
        severity=RISK,
        words=("no longer allows", "AccessDenied"),
    ),
    Mutation(
        name="a load balancer on the internet",
        edit=edit("Pooling", "AWS::ElasticLoadBalancingV2::LoadBalancer", Scheme="internet-facing"),
        effect=Effect.REPLACED,
        severity=OUTAGE,
        words=("Clients of PgBouncer cannot connect",),
        others=(Effect.WIDENED,),
    ),
    # Alarms
    Mutation(
        name="a dropped alarm",
        edit=_remove("Monitoring", ALARM),
        effect=Effect.WEAKENED,
        severity=RISK,
        words=("Nobody is told",),
    ),
    Mutation(
        name="a higher threshold of an alarm above",
        edit=edit("Monitoring", ALARM, _is_greater, Threshold=10**12),
        effect=Effect.WEAKENED,
        severity=RISK,
        words=("later, or not at all",),
    ),
    Mutation(
        name="a higher threshold of an alarm below",
        edit=edit("Monitoring", ALARM, _is_less, Threshold=10**12),
        effect=Effect.STRENGTHENED,
        severity=NOTE,
        words=("notices more",),
    ),
    Mutation(
        name="an alarm that waits longer",
        edit=edit("Monitoring", ALARM, EvaluationPeriods=99),
        effect=Effect.WEAKENED,
        severity=RISK,
        words=("waits longer",),
    ),
    Mutation(
        name="an alarm that is silent without values",
        edit=edit("Monitoring", ALARM, _is_breaching, TreatMissingData="notBreaching"),
        effect=Effect.WEAKENED,
        severity=RISK,
        words=("stays silent",),
    ),
    Mutation(
        name="an alarm that tells nobody",
        edit=edit("Monitoring", ALARM, AlarmActions=[]),
        effect=Effect.WEAKENED,
        severity=RISK,
        words=("no longer tells this receiver",),
    ),
    Mutation(
        name="a removed mail address",
        edit=_remove("Monitoring", "AWS::SNS::Subscription"),
        effect=Effect.WEAKENED,
        severity=RISK,
        words=("no longer reach this address",),
    ),
    # Backups and protections
    Mutation(
        name="backups for a shorter time",
        edit=_primary(BackupRetentionPeriod=3),
        effect=Effect.WEAKENED,
        severity=RISK,
        words=("less far back", "No downtime"),
    ),
    Mutation(
        name="no backups",
        edit=_primary(BackupRetentionPeriod=0),
        effect=Effect.RESTARTED,
        severity=OUTAGE,
        words=("turns backups on or off",),
        others=(Effect.WEAKENED,),
    ),
    Mutation(
        name="copies of backups in another region",
        edit=_primary(AutomaticBackupReplicationRegion="eu-west-1"),
        effect=Effect.WEAKENED,
        severity=RISK,
        words=("could not go back beyond that moment", "start"),
    ),
    Mutation(
        name="no copy of a secret in the recovery region",
        edit=edit(
            "Database",
            "AWS::SecretsManager::Secret",
            lambda p: "ReplicaRegions" in p,
            ReplicaRegions=[],
        ),
        effect=Effect.WEAKENED,
        severity=RISK,
        words=("PgBouncer cannot start there",),
    ),
    Mutation(
        name="no copies of backups in the other region",
        edit=_primary(AutomaticBackupReplicationRegion=None),
        effect=Effect.WEAKENED,
        severity=RISK,
        words=("no longer copied to another region",),
    ),
    Mutation(
        name="no deletion protection",
        edit=_primary(DeletionProtection=False),
        effect=Effect.WEAKENED,
        severity=RISK,
        words=("no longer refuses to delete",),
    ),
    Mutation(
        name="a database that is deleted with its stack",
        edit=_policy("DeletionPolicy", "Delete"),
        effect=Effect.WEAKENED,
        severity=RISK,
        words=("DeletionPolicy Retain -> Delete", "no longer keeps"),
    ),
    Mutation(
        name="no standby",
        edit=_primary(MultiAZ=False),
        environment="Production",
        effect=Effect.WEAKENED,
        severity=RISK,
        words=("no standby", "In the maintenance window"),
    ),
    # PgBouncer
    Mutation(
        name="a smaller pool",
        edit=_set_ini("default_pool_size", "10"),
        effect=Effect.INTERRUPTED,
        severity=OUTAGE,
        words=("server shutting down",),
        others=(Effect.WEAKENED, Effect.CHANGED, Effect.REPLACED),
    ),
    Mutation(
        name="a larger pool than the servers accept",
        edit=_set_ini("default_pool_size", "100"),
        effect=Effect.FAILS,
        severity=DANGER,
        words=("connection budget", "First deploy the higher max_connections alone"),
        others=(Effect.INTERRUPTED, Effect.CHANGED, Effect.REPLACED),
    ),
    Mutation(
        name="clients without TLS",
        edit=_set_ini("client_tls_sslmode", "disable"),
        effect=Effect.INTERRUPTED,
        severity=OUTAGE,
        words=("server shutting down",),
        others=(Effect.WIDENED, Effect.CHANGED, Effect.REPLACED),
    ),
    Mutation(
        name="another image",
        edit=_image,
        effect=Effect.INTERRUPTED,
        severity=OUTAGE,
        words=("new tasks replace the old ones",),
        others=(Effect.REPLACED,),
    ),
    Mutation(
        name="another schema version",
        edit=_schema_version,
        effect=Effect.INTERRUPTED,
        severity=OUTAGE,
        words=("new tasks replace the old ones",),
        others=(Effect.REPLACED,),
    ),
    Mutation(
        name="the listener's port",
        edit=edit("Pooling", "AWS::ElasticLoadBalancingV2::Listener", Port=6432),
        effect=Effect.INTERRUPTED,
        severity=OUTAGE,
        words=("old port cannot connect",),
    ),
    Mutation(
        name="more tasks",
        edit=edit("Pooling", "AWS::ApplicationAutoScaling::ScalableTarget", MaxCapacity=3),
        effect=Effect.CHANGED,
        severity=NOTE,
        words=("budget fits",),
    ),
    Mutation(
        name="fewer tasks at most",
        edit=edit("Pooling", "AWS::ApplicationAutoScaling::ScalableTarget", MaxCapacity=1),
        effect=Effect.WEAKENED,
        severity=RISK,
        words=("Fewer tasks",),
        others=(Effect.CHANGED,),
    ),
    Mutation(
        name="tasks with public addresses",
        edit=_publish_tasks,
        effect=Effect.INTERRUPTED,
        severity=OUTAGE,
        words=("new tasks replace the old ones",),
        others=(Effect.WIDENED, Effect.CHANGED),
    ),
    Mutation(
        name="a disabled key",
        edit=edit("Database", "AWS::KMS::Key", Enabled=False),
        effect=Effect.INTERRUPTED,
        severity=OUTAGE,
        words=("the database stops",),
        others=(Effect.WEAKENED,),
    ),
    Mutation(
        name="no tasks",
        edit=edit("Pooling", SERVICE, DesiredCount=0),
        effect=Effect.INTERRUPTED,
        severity=OUTAGE,
        words=("no client can connect",),
    ),
    # Others
    Mutation(
        name="another rule for generated passwords",
        edit=edit(
            "Database",
            "AWS::SecretsManager::Secret",
            lambda p: "GenerateSecretString" in p,
            GenerateSecretString={"PasswordLength": 50},
        ),
        effect=Effect.INTERRUPTED,
        severity=DANGER,
        words=("generates a new password",),
    ),
    Mutation(
        name="a function's description",
        edit=edit("Migrations", "AWS::Lambda::Function", Description="Another text"),
        effect=Effect.CHANGED,
        severity=NOTE,
        words=("Nobody notices",),
    ),
    Mutation(
        name="a new tag on every resource of a stack",
        edit=_tag,
        effect=Effect.CHANGED,
        severity=NOTE,
        words=("adds", "costs"),
    ),
    Mutation(
        name="a macro that rewrites the template",
        edit=_transform,
        effect=Effect.UNKNOWN,
        severity=RISK,
        words=("can change any resource",),
    ),
    Mutation(
        name="an output that another stack may read",
        edit=_forget_output,
        effect=Effect.CHANGED,
        severity=RISK,
        words=("fails at its next deploy",),
    ),
    Mutation(
        name="a new alarm",
        edit=_add("Monitoring", Type=ALARM, Properties={"AlarmName": "new"}),
        effect=Effect.ADDED,
        severity=NOTE,
        words=("1 CloudWatch::Alarm",),
    ),
)

"""What is lost or interrupted when a resource of a type is replaced or deleted."""

from stacks.review.differences import ResourceChange
from stacks.review.verdicts import Severity

DATABASE = "AWS::RDS::DBInstance"
TASK = "AWS::ECS::TaskDefinition"

_DEPENDENCY = "a retained database, which uses this resource"
AT_STAKE = {
    DATABASE: "users, workflows and executions",
    "AWS::KMS::Key": "all data that this key encrypts: nobody can read it without the key",
    "AWS::SecretsManager::Secret": "the password that clients use",
    "AWS::Logs::LogGroup": "logs",
    "AWS::RDS::DBParameterGroup": _DEPENDENCY,
    "AWS::RDS::DBSubnetGroup": _DEPENDENCY,
    "AWS::EC2::SecurityGroup": _DEPENDENCY,
    "AWS::EC2::VPC": _DEPENDENCY,
    "AWS::EC2::Subnet": _DEPENDENCY,
    "AWS::IAM::Role": _DEPENDENCY,
}
OTHER_AT_STAKE = "the content of this resource, which somebody decided to keep"

_STATEFUL_POLICIES = ("Retain", "RetainExceptOnCreate", "Snapshot")
_STATEFUL_TYPES = (
    DATABASE,
    "AWS::KMS::Key",
    "AWS::S3::Bucket",
    "AWS::SecretsManager::Secret",
)

# The people and programs that notice when a resource is replaced or deleted.
_CLIENTS = "Clients of PgBouncer cannot connect until the new resource works"
_SCALING = "PgBouncer gets no more tasks under load"
_NETWORK = "Everything in this network moves to another one"
_INSTANCES = "The instances that use it must change to another one"
_DEPLOYS = "Only deploys and functions use it. One that runs at that moment can fail"
_NOTICED: dict[str, tuple[Severity, str]] = {
    "AWS::ApplicationAutoScaling::ScalableTarget": (Severity.RISK, _SCALING),
    "AWS::ApplicationAutoScaling::ScalingPolicy": (Severity.RISK, _SCALING),
    "AWS::EC2::FlowLog": (Severity.NOTE, "Connections are not recorded meanwhile"),
    "AWS::EC2::SecurityGroup": (
        Severity.OUTAGE,
        "Members of the old group lose what it allowed, until they are members of the new one",
    ),
    "AWS::EC2::Subnet": (Severity.OUTAGE, _NETWORK),
    "AWS::EC2::VPC": (Severity.OUTAGE, _NETWORK),
    "AWS::Events::Rule": (Severity.RISK, "Events that come meanwhile start nothing"),
    "AWS::KMS::Alias": (Severity.RISK, "Programs that use the alias do not find the key"),
    "AWS::Logs::LogGroup": (Severity.RISK, "The old log is gone"),
    "AWS::Logs::MetricFilter": (Severity.NOTE, "Its metric gets no values meanwhile"),
    "AWS::RDS::DBParameterGroup": (Severity.OUTAGE, _INSTANCES),
    "AWS::RDS::DBSubnetGroup": (Severity.OUTAGE, _INSTANCES),
    "AWS::RDS::EventSubscription": (Severity.RISK, "Events that come meanwhile reach nobody"),
    "AWS::S3::BucketPolicy": (Severity.RISK, _DEPLOYS),
    "AWS::SNS::TopicPolicy": (Severity.RISK, "Alarms may not be delivered meanwhile"),
    "AWS::SecretsManager::RotationSchedule": (
        Severity.RISK,
        "Secrets Manager may rotate the password at once, or no longer",
    ),
    "AWS::SecretsManager::SecretTargetAttachment": (
        Severity.RISK,
        "The secret may lose the address of its database",
    ),
    "AWS::SecretsManager::ResourcePolicy": (Severity.RISK, _DEPLOYS),
    "AWS::EC2::RouteTable": (Severity.OUTAGE, "Hosts of its subnets lose their routes meanwhile"),
    "AWS::EC2::SubnetRouteTableAssociation": (
        Severity.OUTAGE,
        "Hosts of this subnet lose their routes meanwhile",
    ),
    "AWS::EC2::VPCEndpoint": (
        Severity.OUTAGE,
        "Tasks that start meanwhile cannot reach this API of AWS",
    ),
    "AWS::ECS::Cluster": (Severity.OUTAGE, _CLIENTS),
    "AWS::ECS::Service": (Severity.OUTAGE, _CLIENTS),
    "AWS::ElasticLoadBalancingV2::Listener": (Severity.OUTAGE, _CLIENTS),
    "AWS::ElasticLoadBalancingV2::LoadBalancer": (Severity.OUTAGE, _CLIENTS),
    "AWS::ElasticLoadBalancingV2::TargetGroup": (Severity.OUTAGE, _CLIENTS),
    "AWS::Route53::HostedZone": (Severity.OUTAGE, _CLIENTS),
    "AWS::Route53::RecordSet": (Severity.OUTAGE, _CLIENTS),
    "AWS::EC2::SecurityGroupIngress": (
        Severity.NOTE,
        "CloudFormation adds the new rule, then it removes the old one. Open connections stay",
    ),
    "AWS::EC2::SecurityGroupEgress": (
        Severity.NOTE,
        "CloudFormation adds the new rule, then it removes the old one. Open connections stay",
    ),
    "AWS::Lambda::Function": (Severity.RISK, _DEPLOYS),
    "AWS::Lambda::Permission": (Severity.RISK, _DEPLOYS),
    "AWS::StepFunctions::StateMachine": (Severity.RISK, _DEPLOYS),
    "AWS::IAM::Policy": (Severity.RISK, _DEPLOYS),
    "AWS::IAM::Role": (Severity.RISK, _DEPLOYS),
    "AWS::SNS::Topic": (Severity.RISK, "Alarms reach nobody until the address is confirmed again"),
    "AWS::SNS::Subscription": (
        Severity.RISK,
        "Alarms reach nobody until somebody confirms the new subscription by mail",
    ),
    "AWS::CloudWatch::Alarm": (Severity.RISK, "The new alarm begins without a history"),
    "AWS::CloudWatch::Dashboard": (Severity.NOTE, "Links to the old dashboard lead nowhere"),
    "AWS::SSM::Parameter": (
        Severity.RISK,
        "Projects that read this parameter do not find it under its old name",
    ),
}
_UNKNOWN = (
    Severity.OUTAGE,
    "stacks/review/stakes.py does not know this type. Find out who uses the resource",
)


def is_stateful(change: ResourceChange) -> bool:
    """Whether the resource holds data, or something that a person decided to keep."""
    return change.kind in _STATEFUL_TYPES or any(
        (change.old or {}).get(policy) in _STATEFUL_POLICIES
        for policy in ("DeletionPolicy", "UpdateReplacePolicy")
    )


def is_rated(kind: str) -> bool:
    """Whether there is a sentence on who notices."""
    return kind in _NOTICED or kind in _STATEFUL_TYPES or kind == TASK


def find_people(kind: str) -> tuple[Severity, str]:
    """The severity of a replaced resource without data, and who notices."""
    return _NOTICED.get(kind, _UNKNOWN)

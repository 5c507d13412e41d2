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
_STATEFUL_TYPES = (DATABASE, "AWS::KMS::Key", "AWS::SecretsManager::Secret")

# The people and programs that notice when a resource is replaced or deleted.
_CLIENTS = "Clients of PgBouncer cannot connect until the new resource works"
_DEPLOYS = "Only deploys and functions use it. One that runs at that moment can fail"
_NOTICED: dict[str, tuple[Severity, str]] = {
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


def find_people(kind: str) -> tuple[Severity, str]:
    """The severity of a replaced resource without data, and who notices."""
    return _NOTICED.get(kind, _UNKNOWN)

"""The types of resources that the table of costs is about, and those that cost nothing.

A type in neither list fails a test, so that no new cost is missed.
"""

from tests.support.synthesis import Template

# These types have a line in the table, or belong to a resource that has one.
PRICED = {
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::EC2::VPCEndpoint",
    "AWS::ECS::Cluster",
    "AWS::ECS::Service",
    "AWS::ElasticLoadBalancingV2::LoadBalancer",
    "AWS::Events::Rule",
    "AWS::KMS::Key",
    "AWS::Lambda::Function",
    "AWS::Logs::LogGroup",
    "AWS::Logs::MetricFilter",
    "AWS::RDS::DBInstance",
    "AWS::Route53::HostedZone",
    "AWS::SecretsManager::Secret",
}
# These types cost nothing, or less than a cent a month.
FREE = {
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::EC2::FlowLog",  # its log costs
    "AWS::EC2::RouteTable",
    "AWS::EC2::SecurityGroup",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::EC2::Subnet",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPC",
    "AWS::ECS::TaskDefinition",  # Flyway's task runs for minutes
    "AWS::ElasticLoadBalancingV2::Listener",
    "AWS::ElasticLoadBalancingV2::TargetGroup",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::KMS::Alias",
    "AWS::Lambda::Permission",
    "AWS::RDS::DBParameterGroup",
    "AWS::RDS::DBSubnetGroup",
    "AWS::RDS::EventSubscription",
    "AWS::Route53::RecordSet",
    "AWS::SNS::Subscription",  # mails
    "AWS::SNS::Topic",
    "AWS::SNS::TopicPolicy",
    "AWS::SSM::Parameter",
    "AWS::SecretsManager::RotationSchedule",
    "AWS::SecretsManager::SecretTargetAttachment",
    "AWS::StepFunctions::StateMachine",  # it runs at a deploy
    "Custom::Migrations",
}


def find_unknown_types(templates: dict[str, Template]) -> list[str]:
    """One line for each resource type whose price nobody has looked at."""
    kinds = {
        resource["Type"]
        for template in templates.values()
        for resource in template["Resources"].values()
    }
    return [
        f"tests/synth/priced_types.py: {kind} is neither in PRICED nor in FREE; add it, and if it "
        "costs money, add its price to docs/prices.json and a line to stacks/review/costs.py"
        for kind in sorted(kinds - PRICED - FREE)
    ]

"""The monthly rotation of PgBouncer's own password and of the master's."""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from stacks.constructs.bundled_code import bundle_code
from stacks.constructs.credentials import render_arn_pattern
from stacks.constructs.fargate import build_security_group, open_database
from stacks.constructs.findings import acknowledge
from stacks.constructs.functions import FunctionPlace, build_function
from stacks.constructs.network import DatabaseNetwork
from stacks.settings import names
from stacks.settings.access import DATABASE, PASSWORD_LENGTH, PORT
from stacks.settings.environment import EnvironmentSettings

HANDLER = "rotate_password.handler.handler"
# The function imports these files of db/ under their own names.
FILES = ("db/__init__.py", "db/roles.py", "db/scram.py", "db/certificates/rds.pem")
# The driver and what it needs. tests/synth/test_functions.py compares this with their metadata.
DISTRIBUTIONS = ("pg8000", "scramp", "asn1crypto", "python-dateutil", "six")

_SCHEDULE = "rate(30 days)"
# A step takes well under a second. PostgreSQL or Secrets Manager may not answer for 10 s.
_TIMEOUT = cdk.Duration.seconds(60)
_NETWORK_INTERFACES = [
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
]


class PasswordRotation(Construct):
    """A function for both secrets, and a schedule for each of them.

    One function is enough: to rotate PgBouncer's password it needs the master's password. A second
    function would not have less power over the database.

    Each rotation of PgBouncer's password changes the user that is not in use. Running tasks keep
    their user's password until the next rotation. task_renewal.py replaces the tasks before that.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: EnvironmentSettings,
        network: DatabaseNetwork,
        database_group: ec2.ISecurityGroup,
        host: str,
        pooler: secretsmanager.ISecret,
        master: secretsmanager.ISecret,
        key: kms.IKey,
        copy_region: str | None,
    ) -> None:
        """`copy_region` is the region that has a copy of the secrets, if there is one."""
        super().__init__(scope, construct_id)
        group = build_security_group(self, network, description="Rotation of passwords")
        database = open_database(self, group, database_group, "Rotation to PostgreSQL")
        with bundle_code(HANDLER, files=FILES, distributions=DISTRIBUTIONS) as code:
            function = build_function(
                self,
                "Function",
                name=names.rotation_function(settings),
                description="Gives PgBouncer's users and the master a new password",
                handler=HANDLER,
                code=code,
                environment={
                    "HOST": host,
                    "PORT": str(PORT),
                    "DATABASE": DATABASE,
                    "MASTER_SECRET": master.secret_arn,
                    "PASSWORD_LENGTH": str(PASSWORD_LENGTH),
                }
                | ({"COPY_REGION": copy_region} if copy_region else {}),
                timeout=_TIMEOUT,
                statements=[
                    *_allow_secrets(self, [pooler, master], key),
                    *_allow_network(self, names.rotation_function(settings)),
                ],
                place=FunctionPlace(vpc=network.vpc, subnets=network.task_subnets, group=group),
            )
        _acknowledge_role(function)
        permission = self._allow_secrets_manager(function)
        for name, secret in {"PoolerSecret": pooler, "MasterSecret": master}.items():
            schedule = self._add_schedule(name, secret, function)
            # Secrets Manager tests a new schedule at once, so all that a test needs comes before.
            schedule.node.add_dependency(group, database, permission, function)

    def _allow_secrets_manager(self, function: lambda_.Function) -> lambda_.CfnPermission:
        # The account is the condition that Secrets Manager documents for this permission. The role
        # limits the function to its two secrets.
        return lambda_.CfnPermission(
            self,
            "Permission",
            action="lambda:InvokeFunction",
            function_name=function.function_arn,
            principal="secretsmanager.amazonaws.com",
            source_account=cdk.Stack.of(self).account,
        )

    def _add_schedule(
        self, name: str, secret: secretsmanager.ISecret, function: lambda_.Function
    ) -> secretsmanager.CfnRotationSchedule:
        # The CDK's own construct would let Secrets Manager call the function for any account.
        # Its path and logical id are kept. CloudFormation would delete a schedule with another id
        # after it made the new one, and the deletion would end the rotation of the secret.
        return secretsmanager.CfnRotationSchedule(
            Construct(Construct(self, name), "Schedule"),
            "Resource",
            secret_id=secret.secret_arn,
            rotation_lambda_arn=function.function_arn,
            rotation_rules=secretsmanager.CfnRotationSchedule.RotationRulesProperty(
                schedule_expression=_SCHEDULE
            ),
            # A deploy may run a migration or replace tasks, so it must not start a rotation.
            rotate_immediately_on_update=False,
        )


def _allow_secrets(
    scope: Construct, secrets: list[secretsmanager.ISecret], key: kms.IKey
) -> list[iam.PolicyStatement]:
    region = cdk.Stack.of(scope).region
    return [
        iam.PolicyStatement(
            actions=[
                "secretsmanager:DescribeSecret",
                "secretsmanager:GetSecretValue",
                "secretsmanager:PutSecretValue",
                "secretsmanager:UpdateSecretVersionStage",
            ],
            resources=[render_arn_pattern(secret) for secret in secrets],
        ),
        iam.PolicyStatement(
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            resources=[key.key_arn],
            conditions={
                "StringEquals": {"kms:ViaService": f"secretsmanager.{region}.amazonaws.com"}
            },
        ),
    ]


def _allow_network(scope: Construct, function: str) -> list[iam.PolicyStatement]:
    arn = cdk.Stack.of(scope).format_arn(
        service="lambda",
        resource="function",
        resource_name=function,
        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
    )
    return [
        iam.PolicyStatement(actions=_NETWORK_INTERFACES, resources=["*"]),
        # Lambda may make these calls, and the code of the function may not.
        # https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
        iam.PolicyStatement(
            effect=iam.Effect.DENY,
            actions=_NETWORK_INTERFACES,
            resources=["*"],
            conditions={"ArnEquals": {"lambda:SourceFunctionArn": arn}},
        ),
    ]


def _acknowledge_role(function: lambda_.Function) -> None:
    role = function.role
    assert role
    acknowledge(
        role,
        "AwsSolutions::AwsSolutions-IAM5[Resource::*]",
        "Lambda makes network interfaces in the VPC with this role, and a new interface has no "
        "name yet. A second statement denies these calls to the code of the function",
    )

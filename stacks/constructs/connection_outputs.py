"""The connection strings for clients, as stack outputs and SSM parameters."""

import aws_cdk as cdk
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from stacks.settings import names
from stacks.settings.access import APP_USER, DATABASE, PORT, READONLY_DATABASE
from stacks.settings.environment import EnvironmentSettings


def add_connection_outputs(scope: Construct, settings: EnvironmentSettings) -> None:
    for parameter, output, value, description in (
        (
            "writer-url",
            "WriterUrl",
            _render_url(settings, DATABASE),
            "connection string for reads and writes",
        ),
        (
            "read-only-url",
            "ReadOnlyUrl",
            _render_url(settings, READONLY_DATABASE),
            "connection string for reads from the replicas",
        ),
        (
            "password-secret-name",
            "PasswordSecretName",
            names.secret(settings, APP_USER),
            "secret whose key 'password' is DB_PASSWORD",
        ),
    ):
        cdk.CfnOutput(cdk.Stack.of(scope), output, value=value, description=description)
        ssm.StringParameter(
            scope,
            f"Parameter-{parameter}",
            parameter_name=names.parameter(settings, parameter),
            string_value=value,
            description=description,
        )


def _render_url(settings: EnvironmentSettings, database: str) -> str:
    return f"postgresql://{APP_USER}:${{DB_PASSWORD}}@{settings.host_name}:{PORT}/{database}"

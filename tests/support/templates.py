"""Builds and reads CloudFormation templates for tests."""

import functools
from dataclasses import replace
from typing import Any

import aws_cdk as cdk
import pytest

import app
from db.migrations import read_migrations
from stacks.environments import ENVIRONMENTS
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings
from tests.support.audited_app import ACCOUNT
from tests.support.synthesis import CONTEXT, Template

each_environment = pytest.mark.parametrize("settings", ENVIRONMENTS, ids=lambda s: s.name)


def find(template: Template, kind: str) -> dict[str, dict[str, Any]]:
    """The properties of every resource of a type, by logical id."""
    return {
        name: resource.get("Properties", {})
        for name, resource in template["Resources"].items()
        if resource["Type"] == kind
    }


def only(template: Template, kind: str) -> dict[str, Any]:
    """The properties of the only resource of a type."""
    (found,) = find(template, kind).values()
    return found


def build_templates(settings: EnvironmentSettings) -> dict[str, Template]:
    """The templates of an environment with changed settings, by role. They are not validated."""
    made = cdk.App(context=CONTEXT)
    app.build_stacks(made, [settings], migrations=read_migrations(), account=ACCOUNT)
    assembly = made.synth()
    prefix = names.stack(settings, "")
    return {stack.stack_name.removeprefix(prefix): stack.template for stack in assembly.stacks}


@functools.cache
def build_once(
    environment: str, *, is_recovery_promoted: bool, is_recovery_completed: bool = False
) -> dict[str, Template]:
    """Templates that several tests share, so none may change them. A build takes half a second."""
    (settings,) = (settings for settings in ENVIRONMENTS if settings.name == environment)
    return build_templates(
        replace(
            settings,
            is_recovery_promoted=is_recovery_promoted,
            is_recovery_completed=is_recovery_completed,
        )
    )

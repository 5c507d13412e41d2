"""Every resource that takes tags has the project's tags."""

import gzip
import json
from typing import Any

from stacks.environments import ENVIRONMENTS
from stacks.settings import names
from tests.support.synthesis import PROJECT, Synthesis

# What `cdk diff` knows of every resource type. This includes how a type takes tags.
_DATABASE = PROJECT / "node_modules" / "aws-cdk" / "db.json.gz"


def _find_tag_properties() -> dict[str, str]:
    """The name of the property that holds the tags, by resource type."""
    with gzip.open(_DATABASE) as file:
        entities = json.load(file)["schema"]["resource"]["entities"]
    return {
        entity["cloudFormationType"]: entity["tagInformation"]["tagPropertyName"]
        for entity in entities
        if entity.get("tagInformation")
    }


def _read_tags(value: Any) -> dict[str, str]:  # noqa: ANN401
    """Tags as a dictionary. Most types take a list of keys and values, and some take a map."""
    return dict(value) if isinstance(value, dict) else {tag["Key"]: tag["Value"] for tag in value}


def test_every_resource_that_takes_tags_has_the_projects_tags(synthesis: Synthesis) -> None:
    tag_properties = _find_tag_properties()
    tagged: set[str] = set()
    for settings in ENVIRONMENTS:
        prefix = names.stack(settings, "")
        for stack, template in synthesis.templates.items():
            if not stack.startswith(prefix):
                continue
            for name, resource in template["Resources"].items():
                kind = resource["Type"]
                if kind not in tag_properties:
                    continue
                tags = _read_tags(resource["Properties"].get(tag_properties[kind], []))
                found = {key: tags.get(key) for key in ("project", "environment", "stack")}
                assert found == {
                    "project": "cloudflow-database",
                    "environment": settings.name,
                    "stack": stack.removeprefix(prefix),
                }, f"{stack}: {name}"
                tagged.add(kind)
    assert tagged >= {"AWS::RDS::DBInstance", "AWS::SSM::Parameter", "AWS::Route53::HostedZone"}

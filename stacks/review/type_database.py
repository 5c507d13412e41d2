"""The CDK's database of resource types: the properties whose change replaces a resource."""

import gzip
import json
from functools import cache
from pathlib import Path

# The database that `cdk diff` reads. The library's own copy is of another date, and each of the two
# knows properties that the other one lacks.
PATH = Path(__file__).resolve().parents[2] / "node_modules" / "aws-cdk" / "db.json.gz"


@cache
def read_replacement_effects() -> dict[str, dict[str, str]]:
    """Whether a change replaces the resource ("yes", "maybe", "no"), by type and property."""
    with gzip.open(PATH) as file:
        entities = json.load(file)["schema"]["resource"]["entities"]
    return {
        entity["cloudFormationType"]: {
            name: definition.get("causesReplacement", "no")
            for name, definition in entity["properties"].items()
        }
        for entity in entities
    }

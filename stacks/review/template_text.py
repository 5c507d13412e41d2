"""Templates as text: the form in which tests/synth/snapshots holds them."""

import json
import re
from typing import Any

from stacks.review.conditions import resolve_conditions
from stacks.review.differences import ReviewError

_ASSET_HASH = re.compile(r"[0-9a-f]{64}")
_MASK = re.compile(r"ASSET[0-9]+")


def render(template: dict[str, Any]) -> str:
    """The template as sorted JSON. Asset hashes become ASSET1, ASSET2, in order of appearance.

    The parts that the CDK adds to every template are left out.
    """
    kept = {
        key: {k: v for k, v in value.items() if k != "BootstrapVersion"}
        if key == "Parameters"
        else value
        for key, value in template.items()
        if key != "Rules"
    }
    seen: dict[str, str] = {}
    return _ASSET_HASH.sub(
        lambda match: seen.setdefault(match[0], f"ASSET{len(seen) + 1}"),
        json.dumps({k: v for k, v in kept.items() if v}, indent=1, sort_keys=True) + "\n",
    )


def read_comparable(text: str) -> dict[str, Any]:
    """A rendered template without what says nothing about AWS.

    The masks of assets are numbered in order of appearance, so one new asset would change the masks
    of others. A change of an asset is found in its files instead (stacks/review/assets.py). The
    metadata holds paths only, which depend on how the synth was started. Conditions have the values
    of the parameters' defaults. Raises ReviewError if a condition is not understood.
    """
    try:
        template = resolve_conditions(json.loads(_MASK.sub("ASSET", text)))
    except (KeyError, ValueError) as error:
        raise ReviewError(f"a template cannot be read: {error}") from None
    for resource in template.get("Resources", {}).values():
        resource.pop("Metadata", None)
    return template

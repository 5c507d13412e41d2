"""The validators find nothing that is not acknowledged, and no acknowledgement is out of date."""

import json
from typing import Any

from tests.support.synthesis import Synthesis

# The CDK acknowledges these on every flow log, even where the rules find nothing.
_MADE_BY_THE_CDK = {"CloudFormation-Validate::F3002", "CloudFormation-Validate::F3003"}


def _read_report(synthesis: Synthesis) -> list[dict[str, Any]]:
    report = json.loads((synthesis.folder / "validation-report.json").read_text(encoding="utf-8"))
    return report["pluginReports"]


def _find_needed(synthesis: Synthesis) -> set[tuple[str, str]]:
    return {
        (finding["acknowledgedAt"], finding["acknowledgedId"])
        for plugin in _read_report(synthesis)
        for finding in plugin["suppressedViolations"]
    }


def _find_acknowledgements(synthesis: Synthesis) -> set[tuple[str, str]]:
    made: set[tuple[str, str]] = set()
    for path in synthesis.folder.glob("*.metadata.json"):
        for construct, entries in json.loads(path.read_text(encoding="utf-8")).items():
            for entry in entries:
                if entry["type"] == "aws:cdk:acknowledged-rules":
                    made |= {(construct.lstrip("/"), rule) for rule in entry["data"]}
    return {(construct, rule) for construct, rule in made if rule not in _MADE_BY_THE_CDK}


def test_both_validators_ran_and_every_finding_is_acknowledged(
    synthesis: Synthesis,
) -> None:
    plugins = {plugin["pluginName"]: plugin for plugin in _read_report(synthesis)}
    assert {"AwsSolutions", "CloudFormation Validate"} <= plugins.keys()
    for plugin in plugins.values():
        assert plugin["conclusion"] == "success"
        assert plugin["violations"] == []


def test_every_acknowledgement_is_still_needed(synthesis: Synthesis) -> None:
    made, needed = _find_acknowledgements(synthesis), _find_needed(synthesis)
    assert made, "no acknowledgement was found: does the CDK write its metadata in another form?"
    assert sorted(made - needed) == []

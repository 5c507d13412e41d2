"""The validators find nothing that is not acknowledged, and no acknowledgement is out of date."""

import json
from typing import Any

from tests.support.accepted_findings import (
    PACK,
    AcceptedFinding,
    Finding,
    compare,
    read_accepted_findings,
)
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
        if plugin["pluginName"] != PACK  # docs/design.md explains its findings
    }


def _find_acknowledgements(synthesis: Synthesis) -> set[tuple[str, str]]:
    made: set[tuple[str, str]] = set()
    for path in synthesis.folder.glob("*.metadata.json"):
        for construct, entries in json.loads(path.read_text(encoding="utf-8")).items():
            for entry in entries:
                if entry["type"] == "aws:cdk:acknowledged-rules":
                    made |= {(construct.lstrip("/"), rule) for rule in entry["data"]}
    return {(construct, rule) for construct, rule in made if rule not in _MADE_BY_THE_CDK}


def test_all_validators_ran_and_every_finding_is_acknowledged(
    synthesis: Synthesis,
) -> None:
    plugins = {plugin["pluginName"]: plugin for plugin in _read_report(synthesis)}
    assert {"AwsSolutions", PACK, "CloudFormation Validate"} <= plugins.keys()
    for plugin in plugins.values():
        assert plugin["conclusion"] == "success"
        assert plugin["violations"] == []


def test_every_acknowledgement_is_still_needed(synthesis: Synthesis) -> None:
    made, needed = _find_acknowledgements(synthesis), _find_needed(synthesis)
    assert made, "no acknowledgement was found: does the CDK write its metadata in another form?"
    assert sorted(made - needed) == []


def _find_of_pack(synthesis: Synthesis) -> list[Finding]:
    (report,) = (report for report in _read_report(synthesis) if report["pluginName"] == PACK)
    return [
        Finding(rule=finding["ruleName"].removeprefix(f"{PACK}-"), path=found["constructPath"])
        for finding in report["suppressedViolations"]
        for found in finding["violatingConstructs"]
    ]


def test_the_design_explains_every_rule_of_nist_800_53_that_is_not_satisfied_and_no_other(
    synthesis: Synthesis,
) -> None:
    findings = _find_of_pack(synthesis)
    assert findings, "no finding was found: does the CDK write its report in another form?"
    assert compare(read_accepted_findings(), findings) == []


def test_a_new_finding_and_a_place_without_a_finding_are_told() -> None:
    row = AcceptedFinding(rule="RDSMultiAZSupport", places=("Staging-*", "*/Replica*"), reason="")
    known = Finding(rule=row.rule, path="CloudFlow-Staging-Database/Replica1/Resource")
    assert compare([row], [known]) == []
    for new in (
        Finding(rule=row.rule, path="CloudFlow-Production-Database/Primary/Resource"),
        Finding(rule="RDSStorageEncrypted", path=known.path),
    ):
        assert compare([row], [known, new]) == [
            f"docs/design.md: {new.rule} is not satisfied on {new.place}; mend it, or explain it "
            "in the table"
        ]
    of_primary = Finding(rule=row.rule, path="CloudFlow-Staging-Database/Primary/Resource")
    assert compare([row], [of_primary]) == [
        "docs/design.md: RDSMultiAZSupport is satisfied on */Replica*; remove the place from the "
        "table"
    ]

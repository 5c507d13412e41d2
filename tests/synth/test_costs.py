"""docs/design.md states what each environment costs, and the templates and prices agree."""

import copy
from datetime import date

import pytest

from stacks.environments import ENVIRONMENTS, PRODUCTION, STAGING
from stacks.review.costs import HOURS, Bill, find_bills, read_prices, read_regions
from stacks.settings import names
from tests.support.synthesis import Synthesis
from tests.support.templates import find
from tests.synth.cost_table import DESIGN, build_table, read_table, replace_table
from tests.synth.priced_types import find_unknown_types

_ENDPOINTS = "Interface VPC endpoints"


def _find_amounts(synthesis: Synthesis) -> dict[tuple[str, str], Bill]:
    """The bills at a price of 1 for everything: the amounts that are paid for."""
    content = read_prices()
    for price in content["prices"].values():
        price |= {region: 1 for region in price if region != "offer"}
    regions = read_regions(synthesis.folder)
    return find_bills(synthesis.templates, regions, content, ENVIRONMENTS)


def test_the_table_of_costs_follows_from_the_templates_and_the_price_list(
    synthesis: Synthesis,
) -> None:
    recorded = read_table(DESIGN.read_text(encoding="utf-8"))
    assert recorded == build_table(synthesis), (
        "The cost of an environment changed. If that is intended, run make snapshots and commit."
    )


def test_one_more_zone_for_the_endpoints_changes_one_line_of_one_environment(
    synthesis: Synthesis,
) -> None:
    before = _find_amounts(synthesis)
    templates = copy.deepcopy(synthesis.templates)
    network = templates[names.stack(STAGING, "Network")]
    for endpoint in find(network, "AWS::EC2::VPCEndpoint").values():
        if endpoint["VpcEndpointType"] == "Interface":
            endpoint["SubnetIds"].append({"Ref": "Another"})
    after = _find_amounts(Synthesis(folder=synthesis.folder, templates=templates))
    staging = (STAGING.name, STAGING.primary.name)
    assert after[staging][_ENDPOINTS] - before[staging][_ENDPOINTS] == 4 * HOURS
    after[staging][_ENDPOINTS] = before[staging][_ENDPOINTS]
    assert after == before


def test_standbys_replicas_and_copies_in_the_other_region_are_paid_for(
    synthesis: Synthesis,
) -> None:
    amounts = _find_amounts(synthesis)
    east = amounts[PRODUCTION.name, PRODUCTION.primary.name]
    west = amounts[PRODUCTION.name, PRODUCTION.recovery.name]
    # The primary, its standby in another zone, and the replicas. Each has storage of its own.
    assert east["Database instances"] == (2 + PRODUCTION.replicas) * HOURS
    assert west["Database instances"] == HOURS
    assert east["Storage of the instances"] == (2 + PRODUCTION.replicas) * PRODUCTION.storage_gib
    assert west["Backups, and copies of backups"] > PRODUCTION.storage_gib
    task = (PRODUCTION.pooler_cpu_units + PRODUCTION.pooler_memory_mib) / 1024
    assert east["PgBouncer's tasks"] == pytest.approx(PRODUCTION.pooler_tasks * task * HOURS)
    assert west["PgBouncer's tasks"] == 0
    assert east["Secrets, and copies of secrets"] == west["Secrets, and copies of secrets"] == 4


def test_each_metric_that_aws_charges_for_is_counted(synthesis: Synthesis) -> None:
    amounts = _find_amounts(synthesis)
    east = amounts[PRODUCTION.name, PRODUCTION.primary.name]
    west = amounts[PRODUCTION.name, PRODUCTION.recovery.name]
    assert east["Container Insights"] == 37
    assert west["Container Insights"] == 0, "no task runs there"
    templates = copy.deepcopy(synthesis.templates)
    for cluster in find(
        templates[names.stack(PRODUCTION, "Pooling")], "AWS::ECS::Cluster"
    ).values():
        cluster["ClusterSettings"] = [{"Name": "containerInsights", "Value": "disabled"}]
    without = _find_amounts(Synthesis(folder=synthesis.folder, templates=templates))
    assert without[PRODUCTION.name, PRODUCTION.primary.name]["Container Insights"] == 0
    # The size of a disk is one metric for each instance.
    staging = amounts[STAGING.name, STAGING.primary.name]
    more_replicas = PRODUCTION.replicas - STAGING.replicas
    assert more_replicas > 0
    assert east["Own metrics"] - staging["Own metrics"] == more_replicas


def test_a_resource_type_without_a_known_price_is_told(synthesis: Synthesis) -> None:
    assert find_unknown_types(synthesis.templates) == []
    templates = {"Stack": {"Resources": {"Table": {"Type": "AWS::DynamoDB::Table"}}}}
    (line,) = find_unknown_types(templates)
    assert "AWS::DynamoDB::Table is neither in PRICED nor in FREE; add it" in line


def test_the_price_list_has_a_date_and_every_price_of_each_region() -> None:
    content = read_prices()
    assert date.fromisoformat(content["date"])
    regions = {region.name for s in ENVIRONMENTS for region in (s.primary, s.recovery)}
    for name, price in content["prices"].items():
        assert price.keys() == {"offer", *regions}, name


def test_only_the_table_is_rewritten() -> None:
    text = DESIGN.read_text(encoding="utf-8")
    changed = replace_table(text, "| new |\n")
    assert read_table(changed) == "| new |\n"
    assert replace_table(changed, read_table(text)) == text

"""Computes what each environment costs a month, from its templates and docs/prices.json."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stacks.review.conditions import resolve_conditions
from stacks.review.differences import Template
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

PRICES = Path(__file__).resolve().parents[2] / "docs" / "prices.json"
HOURS = 730  # of an average month
_FUNCTION_GB = 0.125  # Lambda's default
_INSTANCE = "AWS::RDS::DBInstance"
_SERVICE = "AWS::ECS::Service"

Properties = dict[str, Any]
# The cost of each line of the table, in its order.
Bill = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class PriceList:
    """docs/prices.json, for one region."""

    region: str
    content: dict[str, Any]

    def price(self, name: str) -> float:
        return float(self._read("prices", name)[self.region])

    def size(self, name: str) -> float:
        return float(self._read("sizes", name))

    def assume(self, name: str) -> float:
        return float(self._read("assumptions", name))

    def _read(self, part: str, name: str) -> Any:  # noqa: ANN401
        if name not in self.content[part]:
            raise ValueError(f"docs/prices.json: {part} has no {name!r}; add it")
        return self.content[part][name]


@dataclass(frozen=True, kw_only=True)
class PricedResources:
    """All resources of one environment, by region."""

    templates: dict[str, list[Template]]

    def find(self, region: str, kind: str) -> Iterator[Properties]:
        for template in self.templates[region]:
            yield from find(template, kind).values()

    def find_everywhere(self, kind: str) -> Iterator[Properties]:
        for region in self.templates:
            yield from self.find(region, kind)

    @property
    def storage_gb(self) -> float:
        """The storage of the primary when it is made. Its replicas take their size from it."""
        (storage,) = {
            float(instance["AllocatedStorage"])
            for instance in self.find_everywhere(_INSTANCE)
            if "AllocatedStorage" in instance
        }
        return storage


def find(template: Template, kind: str) -> dict[str, Properties]:
    """The properties of every resource of a type, by logical id."""
    return {
        name: resource.get("Properties", {})
        for name, resource in template["Resources"].items()
        if resource["Type"] == kind
    }


def read_prices(path: Path = PRICES) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def find_bills(
    all_templates: dict[str, Template],
    regions: dict[str, str],
    content: dict[str, Any],
    environments: Sequence[EnvironmentSettings],
) -> dict[tuple[str, str], Bill]:
    """The bill of each environment in each region, at the prices of the content.

    `regions` has the region of each stack. An environment without templates has no bill. Raises
    ValueError if there is no price.
    """
    bills: dict[tuple[str, str], Bill] = {}
    for settings in environments:
        templates: dict[str, list[Template]] = {
            settings.primary.name: [],
            settings.recovery.name: [],
        }
        for name, template in all_templates.items():
            if name.startswith(names.stack(settings, "")):
                # A promotion changes properties by conditions. The table is about the time before.
                templates[regions[name]].append(resolve_conditions(template))
        if not any(templates.values()):
            continue
        resources = PricedResources(templates=templates)
        for region in templates:
            prices = PriceList(region=region, content=content)
            bills[settings.name, region] = _find_bill(resources, prices)
    return bills


def read_regions(folder: Path) -> dict[str, str]:
    """The region of each stack, from the manifest of a synth."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {
        name: artifact["environment"].rpartition("/")[2]
        for name, artifact in manifest["artifacts"].items()
        if artifact["type"] == "aws:cloudformation:stack"
    }


def _find_bill(resources: PricedResources, prices: PriceList) -> Bill:
    region = prices.region
    instances = list(resources.find(region, _INSTANCE))
    zones = sum(
        len(endpoint["SubnetIds"])
        for endpoint in resources.find(region, "AWS::EC2::VPCEndpoint")
        if endpoint["VpcEndpointType"] == "Interface"
    )
    keys = len(list(resources.find(region, "AWS::KMS::Key")))
    dashboards = len(list(resources.find(region, "AWS::CloudWatch::Dashboard")))
    private_zones = len(list(resources.find(region, "AWS::Route53::HostedZone")))
    return {
        "Database instances": _price_instances(instances, prices),
        "Storage of the instances": _price_storage(instances, prices, resources.storage_gb),
        "Database Insights, advanced": _price_insights(instances, prices),
        "Backups, and copies of backups": _price_backups(resources, prices),
        "Transfer to the other region": _price_transfer(resources, prices),
        "PgBouncer's tasks": _price_tasks(resources, prices),
        "Load balancers": _price_balancers(resources, prices),
        "Interface VPC endpoints": zones
        * HOURS
        * prices.price("interface endpoint in a zone, hour"),
        "Keys": keys * prices.price("key, month"),
        "Secrets, and copies of secrets": _count_secrets(resources, region)
        * prices.price("secret or copy of a secret, month"),
        "Alarms": _count_alarm_metrics(resources, region)
        * prices.price("metric of an alarm, month"),
        "Dashboards": dashboards * prices.price("dashboard, month"),
        "Own metrics": len(_find_own_metrics(resources, region))
        * prices.price("own metric, month"),
        "Container Insights": _price_container_insights(resources, prices),
        "Logs": _price_logs(resources, prices),
        "Functions on a schedule": _price_functions(resources, prices),
        "Private zones": private_zones * prices.price("private zone, month"),
    }


# Databases


def _count_copies(instance: Properties) -> int:
    """A Multi-AZ instance has a standby, with storage of its own."""
    return 2 if instance.get("MultiAZ") else 1


def _find_class(instance: Properties) -> str:
    return str(instance["DBInstanceClass"]).removeprefix("db.")


def _price_instances(instances: list[Properties], prices: PriceList) -> float:
    return HOURS * sum(
        _count_copies(instance) * prices.price(f"database instance {_find_class(instance)}, hour")
        for instance in instances
    )


def _price_storage(instances: list[Properties], prices: PriceList, storage_gb: float) -> float:
    return storage_gb * sum(
        _count_copies(instance)
        * prices.price(f"database storage {instance['StorageType']}, GB-month")
        for instance in instances
    )


def _price_insights(instances: list[Properties], prices: PriceList) -> float:
    cpus = sum(
        prices.size(f"vCPU of {_find_class(instance)}")
        for instance in instances
        if instance["DatabaseInsightsMode"] == "advanced"
    )
    return cpus * HOURS * prices.price("Database Insights advanced, vCPU-hour")


def _price_backups(resources: PricedResources, prices: PriceList) -> float:
    """RDS charges for backups beyond the size of the instances, and for copies from their start."""
    daily_share = prices.assume("share of the storage that changes in a day")
    shares = 0.0
    for instance in resources.find(prices.region, _INSTANCE):
        shares += float(instance["BackupRetentionPeriod"]) * daily_share
    for instance in resources.find_everywhere(_INSTANCE):
        if instance.get("AutomaticBackupReplicationRegion") == prices.region:
            days = float(instance["AutomaticBackupReplicationRetentionPeriod"])
            shares += 1 + days * daily_share
    return shares * resources.storage_gb * prices.price("database backup, GB-month")


def _price_transfer(resources: PricedResources, prices: PriceList) -> float:
    """What changes is sent to a replica of the other region, and to the copy of the backups."""
    copies = 0
    for region in resources.templates:
        for instance in resources.find(region, _INSTANCE):
            source = json.dumps(instance.get("SourceDBInstanceIdentifier"))
            copies += region != prices.region and f":rds:{prices.region}:" in source
            copies += region == prices.region and "AutomaticBackupReplicationRegion" in instance
    changed_gb = (
        resources.storage_gb
        * prices.assume("share of the storage that changes in a day")
        * HOURS
        / 24
    )
    return copies * changed_gb * prices.price("transfer to another region, GB")


# Tasks


def _price_tasks(resources: PricedResources, prices: PriceList) -> float:
    total = 0.0
    for template in resources.templates[prices.region]:
        for service in find(template, _SERVICE).values():
            task = template["Resources"][service["TaskDefinition"]["Ref"]]["Properties"]
            processor = f"Fargate {task['RuntimePlatform']['CpuArchitecture']}"
            hourly = int(task["Cpu"]) / 1024 * prices.price(f"{processor}, vCPU-hour")
            hourly += int(task["Memory"]) / 1024 * prices.price(f"{processor}, GB-hour")
            total += _count_tasks(template, service) * HOURS * hourly
    return total


def _count_tasks(template: Template, service: Properties) -> int:
    """The tasks at little load. Scaling adds more, and the table does not."""
    minimums = [
        int(target["MinCapacity"])
        for target in find(template, "AWS::ApplicationAutoScaling::ScalableTarget").values()
    ]
    return max(minimums) if minimums else int(service["DesiredCount"])


def _price_balancers(resources: PricedResources, prices: PriceList) -> float:
    hourly = 0.0
    for template in resources.templates[prices.region]:
        tasks = sum(_count_tasks(template, s) for s in find(template, _SERVICE).values())
        units = prices.assume("capacity units of a load balancer with tasks") if tasks else 0
        for _ in find(template, "AWS::ElasticLoadBalancingV2::LoadBalancer"):
            hourly += prices.price("network load balancer, hour")
            hourly += units * prices.price("network load balancer, capacity unit-hour")
    return HOURS * hourly


def _price_functions(resources: PricedResources, prices: PriceList) -> float:
    runs = 0.0
    for rule in resources.find(prices.region, "AWS::Events::Rule"):
        if "ScheduleExpression" in rule and rule["State"] == "ENABLED":
            runs += HOURS * 60 / _read_minutes(rule["ScheduleExpression"])
    gb_seconds = prices.assume("seconds of a scheduled run") * _FUNCTION_GB
    return runs * (
        prices.price("function, request") + gb_seconds * prices.price("function ARM64, GB-second")
    )


def _read_minutes(schedule: str) -> int:
    rate = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", schedule)
    if rate is None:
        raise ValueError(
            f"stacks/review/costs.py: the schedule {schedule} is not read; add its form"
        )
    return int(rate[1]) * {"minute": 1, "hour": 60, "day": 24 * 60}[rate[2]]


# Secrets, metrics and logs


def _count_secrets(resources: PricedResources, region: str) -> int:
    copies = [
        copy
        for secret in resources.find_everywhere("AWS::SecretsManager::Secret")
        for copy in secret.get("ReplicaRegions", [])
        if copy["Region"] == region
    ]
    return len(list(resources.find(region, "AWS::SecretsManager::Secret"))) + len(copies)


def _count_alarm_metrics(resources: PricedResources, region: str) -> int:
    """An alarm on an expression costs as much as the metrics in it."""
    return sum(
        sum("MetricStat" in metric for metric in alarm["Metrics"]) if "Metrics" in alarm else 1
        for alarm in resources.find(region, "AWS::CloudWatch::Alarm")
    )


def _find_own_metrics(resources: PricedResources, region: str) -> set[tuple[str, ...]]:
    """The metrics of this project that the region's alarms, dashboards and filters name.

    A metric is its name and its dimensions: AWS charges for each value of a dimension.
    """
    templates = resources.templates[region]
    text = json.dumps(templates, sort_keys=True).replace("\\", "")
    in_dashboards = re.findall(r'"CloudFlow/\w+", ?"(\w+)"((?:, ?"[^"]+")*)(?!:)', text)
    return {
        *((name, *re.findall(r'"([^"]+)"', dimensions)) for name, dimensions in in_dashboards),
        *_find_named_metrics(templates),
    }


def _find_named_metrics(value: Any) -> Iterator[tuple[str, ...]]:  # noqa: ANN401
    """The own metrics of alarms and filters, at any depth."""
    if isinstance(value, dict):
        namespace = value.get("Namespace", value.get("MetricNamespace"))
        if "MetricName" in value and str(namespace).startswith("CloudFlow/"):
            dimensions = value.get("Dimensions", [])
            pairs = (part for entry in dimensions for part in (entry["Name"], entry["Value"]))
            yield (str(value["MetricName"]), *map(str, pairs))
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, dict | list):
            yield from _find_named_metrics(part)


def _price_container_insights(resources: PricedResources, prices: PriceList) -> float:
    """AWS charges for these metrics as for own ones, in the hours in which tasks run.

    The number is an estimate. Ten metrics of CPU, memory, network and storage have the cluster, the
    service and the task family as their dimensions. The cluster has 2 more and the service 5 more.
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Container-Insights-metrics-ECS.html
    """
    clusters = 0
    for template in resources.templates[prices.region]:
        if any(_count_tasks(template, service) for service in find(template, _SERVICE).values()):
            clusters += sum(
                {"Name": "containerInsights", "Value": "enabled"} in cluster["ClusterSettings"]
                for cluster in find(template, "AWS::ECS::Cluster").values()
            )
    return (
        clusters
        * prices.assume("Container Insights metrics of a cluster with a service")
        * prices.price("own metric, month")
    )


def _price_logs(resources: PricedResources, prices: PriceList) -> float:
    total = 0.0
    for group in resources.find(prices.region, "AWS::Logs::LogGroup"):
        months = float(group["RetentionInDays"]) * 24 / HOURS
        total += _assume_log_gb(str(group["LogGroupName"]), prices) * (
            prices.price("log ingested, GB") + months * prices.price("log stored, GB-month")
        )
    for instance in resources.find(prices.region, _INSTANCE):
        if instance["MonitoringInterval"]:
            gb = prices.assume("GB a month of operating system metrics of an instance")
            total += gb * prices.price("log ingested, GB")
    return total


def _assume_log_gb(group: str, prices: PriceList) -> float:
    kind = group.rpartition("/")[2]
    is_known = f"GB a month of the log {kind}" in prices.content["assumptions"]
    return prices.assume(
        f"GB a month of the log {kind}" if is_known else "GB a month of any other log"
    )

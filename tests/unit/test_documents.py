"""The README and docs/ say what is so: names exist, links lead somewhere, commands are real."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jmespath
import pglast
import pytest

from db.local.access import DEFAULT_PORT, DEV_DATABASE, DEV_PASSWORD, DEV_USER
from db.migrations import FOLDER as MIGRATIONS_FOLDER
from db.pgbouncer import CLIENT_KIB, DEFAULT_MEMORY_MIB, PgBouncerSettings
from stacks.environments import ENVIRONMENTS, STAGING
from stacks.settings.budget import (
    ADMINISTRATORS,
    MIGRATIONS,
    RESERVED,
    ROLLING_DEPLOYMENT,
    plan_budgets,
    primary_parameters,
)
from stacks.settings.sizes import INSTANCE_MEMORY_GIB
from tests.support.aws_commands import find_commands, find_faults
from tests.support.documents import Document, build_anchor, read_documents
from tests.support.machine import PROJECT
from tests.support.migration_rules import find_violations

DOCUMENTS = {document.name: document for document in read_documents()}
README = DOCUMENTS["README.md"]
RUNBOOK = DOCUMENTS["docs/runbook.md"]
ALL = pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
_SNAPSHOTS = PROJECT / "tests" / "synth" / "snapshots"

# Names of what a document tells the reader to make.
_MADE_BY_THE_READER = {
    "cloudflow-staging-main",
    "cloudflow-staging-recovery-2",  # recovery_replica_number=2
    "cloudflow-staging-restored",
    "cloudflow-staging-before-new-start",
    "cloudflow-staging-primary-by-hand",
}

# Names of PostgreSQL, of drivers and of npm that the code does not use.
_NAMES_OF_OTHERS = {
    "binary_parameters",
    "default_transaction_read_only",
    "describe_exec",
    "node_modules",
    "pg_advisory_lock",
    "pg_dump",
    "search_path",
    "statement_timeout",
}


def _document(text: str) -> Document:
    return Document(name="docs/control.md", text=text)


# Blocks


@ALL
def test_every_block_has_a_language_that_is_checked(document: Document) -> None:
    # Blocks without a language are what a program prints.
    assert {block.language for block in document.blocks} <= {"sh", "sql", "mermaid", ""}
    assert document.text.count("```") == 2 * len(document.blocks), "a block is not closed"


@ALL
def test_every_shell_block_parses(document: Document) -> None:
    for script in document.of_language("sh"):
        assert _find_shell_faults(script) == "", script


def _find_shell_faults(script: str) -> str:
    return subprocess.run(
        ["bash", "-n"], input=script, capture_output=True, text=True, check=False
    ).stderr


def test_a_shell_block_that_does_not_parse_is_found() -> None:
    assert _find_shell_faults("for task in 1 2; do\n  echo\n") != ""


def test_every_variable_of_the_runbook_is_set_there() -> None:
    assert list(_find_unset_variables(RUNBOOK)) == []


def _find_unset_variables(document: Document) -> Iterator[str]:
    """Variables that neither the same block nor the first block of the document sets."""
    scripts = document.of_language("sh")
    for script in scripts:
        set_here = set(re.findall(r"(?:^|\s)(?:for )?(\w+)(?:=| in )", scripts[0] + "\n" + script))
        for match in re.finditer(r"\$\{?[A-Za-z_]\w*", script):
            name = match.group().lstrip("${")
            if name not in set_here:
                yield name


def test_a_variable_that_is_not_set_is_found() -> None:
    text = "```sh\nexport A=1\n```\n```sh\necho $A $B\n```\n"
    assert list(_find_unset_variables(_document(text))) == ["B"]


# Names of this project


@ALL
def test_every_make_target_exists(document: Document) -> None:
    assert _find_make_targets(document) <= _list_make_targets()


def test_the_readme_names_make_targets() -> None:
    assert _find_make_targets(README) >= {"up", "status", "psql", "down", "test", "deploy"}
    assert _find_make_targets(_document("```sh\nmake nothing\n```\nor `make less`")) == {
        "nothing",
        "less",
    }


def _find_make_targets(document: Document) -> set[str]:
    code = "\n".join([*document.of_language("sh"), *document.spans])
    return set(re.findall(r"^make ([a-z]+)", code, re.MULTILINE))


def _list_make_targets() -> set[str]:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))


@ALL
def test_every_file_that_is_named_exists(document: Document) -> None:
    assert list(_find_missing_files(document)) == []


def test_a_file_that_does_not_exist_is_found() -> None:
    found = _document("`db/none.py`, `stacks/`, `db/migrations/V5__add_teams.sql` and `app.py`")
    assert list(_find_missing_files(found)) == ["db/none.py"]


def _find_missing_files(document: Document) -> Iterator[str]:
    for span in document.spans:
        if not re.fullmatch(r"(?:db|stacks|tests|docs|\.ci)/[\w./-]*|[\w-]+\.(?:py|md)", span):
            continue
        is_example = re.fullmatch(r"db/migrations/V5__\w+\.sql", span)
        if not is_example and not (PROJECT / span).exists():
            yield span


@ALL
def test_every_setting_that_is_named_is_in_the_code(document: Document) -> None:
    assert list(_find_unknown_settings(document)) == []


def test_a_setting_that_the_code_does_not_have_is_found() -> None:
    text = "`is_promoted_now=True`, `storage_gib`, `search_path`"
    assert list(_find_unknown_settings(_document(text))) == ["is_promoted_now"]


def _find_unknown_settings(document: Document) -> Iterator[str]:
    """Names of settings, parameters and roles that stand nowhere in db/ and stacks/."""
    known = _list_code_words() | _NAMES_OF_OTHERS
    for span in document.spans:
        match = re.fullmatch(r"([a-z]+(?:_[a-z]+)+)(?:=\w+)?", span)
        if match and match[1] not in known:
            yield str(match[1])


@cache
def _list_code_words() -> set[str]:
    return {str(word) for text in _read_code() for word in re.findall(r"\w+", text)}


@ALL
def test_every_physical_name_is_in_a_template(document: Document) -> None:
    assert list(_find_unknown_names(document)) == []


def test_a_physical_name_that_no_template_has_is_found() -> None:
    text = "`cloudflow-$ENVIRONMENT-primary`, `cloudflow-staging-first`, `/cloudflow/production/pg`"
    assert list(_find_unknown_names(_document(text))) == [
        "cloudflow-staging-first",
        "/cloudflow/production/pg",
    ]


def _find_unknown_names(document: Document) -> Iterator[str]:
    text = document.text
    for variable, value in {
        "${ENVIRONMENT^}": "Staging",
        "$ENVIRONMENT": "staging",
        "$INSTANCE": "cloudflow-staging-primary",
        "$STACK": "CloudFlow-Staging",
    }.items():
        text = text.replace(variable, value)
    pattern = r"/?(?:[\w/-]*/)?cloudflow[-/](?:staging|production)(?:[-/][\w-]+)+"
    for match in re.finditer(f"{pattern}|CloudFlow-(?:Staging|Production)-[\\w-]+", text):
        if match.group() not in _MADE_BY_THE_READER and not _is_in_templates(match.group()):
            yield match.group()


def _is_in_templates(name: str) -> bool:
    if name in {path.stem for path in _SNAPSHOTS.glob("*.json")}:  # a stack
        return True
    # Lambda makes the log group of the rotation's function itself.
    name = name.removeprefix("/aws/lambda/")
    return bool(re.search(rf"{re.escape(name)}(?![\w-])", _read_templates()))


@cache
def _read_templates() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in _SNAPSHOTS.glob("*.json"))


def test_the_groups_of_a_deleted_replica_are_in_the_stack() -> None:
    """The runbook finds them by the beginning of their logical ids."""
    (query,) = re.findall(
        r'describe-stack-resources .*?--query\s+(?:\\\n\s*)?"(.+?)"', RUNBOOK.text, re.DOTALL
    )
    template = json.loads((_SNAPSHOTS / "CloudFlow-Staging-Database.json").read_text("utf-8"))
    known = [
        {"LogicalResourceId": name, "ResourceType": resource["Type"], "PhysicalResourceId": name}
        for name, resource in template["Resources"].items()
    ]
    found = dict(jmespath.search(query, {"StackResources": known}))
    replica = next(
        resource["Properties"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::RDS::DBInstance"
        and "SourceDBInstanceIdentifier" in resource["Properties"]
    )
    assert found == {
        "AWS::EC2::SecurityGroup": replica["VPCSecurityGroups"][0]["Fn::GetAtt"][0],
        "AWS::RDS::DBParameterGroup": replica["DBParameterGroupName"]["Ref"],
    }


# Links


@ALL
def test_every_link_leads_somewhere(document: Document) -> None:
    assert list(_find_broken_links(document)) == []


def test_a_link_that_leads_nowhere_is_found() -> None:
    text = "# Here\n[a](#here) [b](#there) [c](runbook.md#cpu) [d](runbook.md#gpu) [e](none.md)"
    assert list(_find_broken_links(_document(text))) == ["#there", "runbook.md#gpu", "none.md"]


def test_anchors_follow_githubs_rules() -> None:
    assert build_anchor("What a failover costs") == "what-a-failover-costs"
    assert build_anchor("`UPDATE_ROLLBACK_FAILED`: do, or don't") == (
        "update_rollback_failed-do-or-dont"
    )
    assert _document("# A\n## B\n```sh\n# none\n```\n## B\n").anchors == ["a", "b", "b-1"]


def _find_broken_links(document: Document) -> Iterator[str]:
    for link in document.links:
        path, _, anchor = link.partition("#")
        target = (PROJECT / document.name).parent / path if path else PROJECT / document.name
        if not path:
            anchors = document.anchors
        elif (name := str(target.resolve().relative_to(PROJECT))) in DOCUMENTS:
            anchors = DOCUMENTS[name].anchors
        else:
            anchors = []
        if (path and not target.exists()) or (anchor and anchor not in anchors):
            yield link


def test_every_document_is_linked_from_the_readme() -> None:
    assert set(DOCUMENTS) - {"README.md"} <= set(README.links)


def test_every_document_that_the_code_names_exists() -> None:
    """Alarms, errors and comments name a document, and often a heading in it."""
    assert [n for n in _find_named_headings(_read_code()) if not _has_heading(n)] == []


def test_a_heading_that_the_code_names_and_no_document_has_is_found() -> None:
    named = list(_find_named_headings(['"see docs/runbook.md#cpu, docs/runbook.md#gpu"']))
    assert [name for name in named if not _has_heading(name)] == ["docs/runbook.md#gpu"]


def _find_named_headings(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for match in re.finditer(r"(?:README|docs/\w+)\.md(?:#[\w-]+)?", text):
            yield match.group()


def _has_heading(name: str) -> bool:
    path, _, anchor = name.partition("#")
    return path in DOCUMENTS and (not anchor or anchor in DOCUMENTS[path].anchors)


def _read_code() -> Iterator[str]:
    for path in (
        PROJECT / "app.py",
        PROJECT / "Makefile",
        *_find_code("db"),
        *_find_code("stacks"),
    ):
        yield path.read_text(encoding="utf-8")
    yield _read_templates()


def _find_code(folder: str) -> list[Path]:
    return [
        path
        for path in (PROJECT / folder).rglob("*")
        if path.is_file() and path.suffix in {".py", ".sql", ".sh", ".toml"}
    ]


# Alarms and messages


@cache
def _read_alarms() -> dict[str, dict[str, Any]]:
    """The properties of staging's alarms, by the heading that each must have."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(_SNAPSHOTS.glob("CloudFlow-Staging-*.json")):
        for resource in json.loads(path.read_text(encoding="utf-8"))["Resources"].values():
            if resource["Type"] == "AWS::CloudWatch::Alarm":
                name = resource["Properties"]["AlarmName"].removeprefix("cloudflow-staging-")
                found[re.sub(r"^(primary|replica-\d+|recovery)-", "", name)] = resource[
                    "Properties"
                ]
    return found


def test_every_alarm_has_a_heading() -> None:
    alarms = set(_read_alarms())
    assert {"cpu", "slot-lag", "pooler-down", "backup-age"} <= alarms
    assert alarms - set(RUNBOOK.anchors) == set()
    assert "gpu" not in RUNBOOK.anchors


def test_every_alarm_links_to_its_heading() -> None:
    for alarm, properties in _read_alarms().items():
        assert f"docs/runbook.md#{alarm}" in properties["AlarmDescription"], alarm


def test_every_alarms_section_has_commands_and_the_cost_of_waiting() -> None:
    for alarm in _read_alarms():
        section = RUNBOOK.section(alarm)
        assert "\n1. " in section, alarm
        assert "*Cost of waiting:*" in section, alarm


@pytest.mark.parametrize("alarm", sorted(_read_alarms()))
def test_an_alarms_section_says_how_long_it_waits(alarm: str) -> None:
    properties = _read_alarms()[alarm]
    periods = [properties.get("Period", 0)] + [
        metric["MetricStat"]["Period"]
        for metric in properties.get("Metrics", [])
        if "MetricStat" in metric
    ]
    minutes = properties["EvaluationPeriods"] * max(periods) // 60
    words = " ".join(RUNBOOK.section(alarm).split()).partition("1. ")[0]
    hours = f"{minutes // 60} hours"
    assert re.search(rf"\b{minutes} minutes\b|\b{hours}\b", words), f"{minutes} minutes"


def test_an_alarms_section_has_its_threshold() -> None:
    thresholds = {name: float(found["Threshold"]) for name, found in _read_alarms().items()}
    gib = 2**30
    memory = INSTANCE_MEMORY_GIB[STAGING.instance_class] * gib
    parameters = primary_parameters(STAGING)
    kept_mib = int(parameters["max_slot_wal_keep_size"])
    for alarm, words in {
        "cpu": f"above {thresholds['cpu']:g} %",
        "memory": f"below {thresholds['memory'] / memory * 100:g} %",
        "storage": f"below {thresholds['storage']:g} %",
        "storage-trend": f"within {thresholds['storage-trend']:g} hours",
        "connections": "More than "
        f"{thresholds['connections'] / int(parameters['max_connections']) * 100:g} %",
        "lag": f"more than {thresholds['lag']:g} s",
        "slot-lag": f"{thresholds['slot-lag'] / kept_mib / 2**20 * 100:g} % of",
        "transaction-ids": f"{int(thresholds['transaction-ids']):,} transaction IDs",
        "pooler-waiting": f"more than {thresholds['pooler-waiting'] / 1e3:g} s",
        "pooler-metrics": f"fewer than {thresholds['pooler-metrics']:g} reports",
        "backup-age": f"more than {thresholds['backup-age']:g} s",
        "backup-depth": f"{thresholds['backup-depth'] / 3600:g} hours less",
        "snapshot-age": f"older than {thresholds['snapshot-age'] / 3600:g} hours",
        "snapshot-window": f"more than {thresholds['snapshot-window']:g} s",
    }.items():
        assert words in " ".join(RUNBOOK.section(alarm).split()), f"{alarm}: {words}"


def test_every_mail_about_an_event_has_a_heading_with_commands_and_the_cost_of_waiting() -> None:
    anchors = set(re.findall(r"Runbook: docs/runbook\.md#([a-z-]+)", _read_templates()))
    mails = anchors - set(_read_alarms())
    assert mails == {"migration-failed", "rollout-failed"}
    for anchor in (*mails, "events-of-rds"):
        section = RUNBOOK.section(anchor)
        assert "\n1. " in section, anchor
        assert "*Cost of waiting:*" in section, anchor


def test_every_message_of_a_failed_deploy_has_a_heading() -> None:
    assert {
        "half-done",
        "stopped-after-50-minutes",
        "another-migration-is-running",
        "was-killed",
        "did-not-start",
        "rolled-back",
        "flyway-said-nothing",
        "update-rollback-failed",
    } <= set(RUNBOOK.anchors)


# Commands of AWS, and SQL


@ALL
def test_every_aws_command_is_one_that_aws_knows(document: Document) -> None:
    faults = [
        fault
        for script in document.of_language("sh")
        for command in find_commands(script)
        for fault in find_faults(command)
    ]
    faults += [
        fault
        for span in document.spans
        for command in find_commands(span)
        for fault in find_faults(command, is_whole=False)
    ]
    assert faults == []


@ALL
def test_no_aws_command_escapes_the_check(document: Document) -> None:
    for script in document.of_language("sh"):
        written = len(re.findall(r"(?<![\w/.-])aws [a-z]", script))
        assert len(list(find_commands(script))) == written, script


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("aws rdz describe-db-instances", "Unknown service: 'rdz'"),
        ("aws rds describe-db-instance", "aws rds has no operation describe-db-instance"),
        ("aws rds wait db-gone", "aws rds wait has no db-gone"),
        (
            'X=$(aws rds describe-db-instances \\\n  --db-instance "$INSTANCE")',
            "aws rds describe-db-instances has no option --db-instance",
        ),
        ("aws ecs stop-task --cluster a", "aws ecs stop-task needs --task"),
        (
            "aws rds describe-db-instances --query 'DBInstances[0].Host'",
            "aws rds describe-db-instances --query: the answer has no Host",
        ),
        (
            "aws sns list-topics --query 'Topics['",
            "aws sns list-topics --query: Invalid jmespath expression",
        ),
    ],
)
def test_an_aws_command_with_a_fault_is_found(script: str, fault: str) -> None:
    (command,) = find_commands(script)
    assert fault in "\n".join(find_faults(command))


@ALL
def test_every_sql_block_parses(document: Document) -> None:
    for sql in document.of_language("sql"):
        assert pglast.parse_sql(sql), sql


def test_sql_that_does_not_parse_is_found() -> None:
    with pytest.raises(pglast.parser.ParseError):
        pglast.parse_sql("SELECT FROM WHERE")


def test_the_examples_of_migrations_keep_the_rules(tmp_path: Path) -> None:
    changing, indexing, exempt = DOCUMENTS["docs/migrations.md"].of_language("sql")
    shutil.copytree(MIGRATIONS_FOLDER, tmp_path, dirs_exist_ok=True)
    (tmp_path / "V5__change.sql").write_text(changing, encoding="utf-8")
    (tmp_path / "V6__index.sql").write_text(indexing, encoding="utf-8")
    (tmp_path / "V6__index.sql.conf").write_text("executeInTransaction=false\n", "utf-8")
    exempt = f"SET LOCAL lock_timeout = '500ms';\n{exempt}"
    (tmp_path / "V7__exempt.sql").write_text(exempt, encoding="utf-8")
    assert find_violations(tmp_path) == []
    (tmp_path / "V7__exempt.sql").write_text(exempt.replace("--", "-- not"), encoding="utf-8")
    assert "ban-drop-column" in "\n".join(find_violations(tmp_path))


# Figures


def test_the_connection_strings_are_those_of_the_settings() -> None:
    address = f"postgresql://{DEV_USER}:{DEV_PASSWORD}@localhost:{DEFAULT_PORT}/{DEV_DATABASE}"
    assert f"| development | `{address}` |" in README.text
    for host in ("staging-db.internal", "prod-db.internal"):
        assert f"`postgresql://app:${{DB_PASSWORD}}@{host}:5432/cloudflow`" in README.text


def test_the_limits_are_those_of_the_settings() -> None:
    words = DOCUMENTS["docs/pooling.md"].words
    size = PgBouncerSettings.default_pool_size
    for sentence in (
        f"at most **{size}** server connections (`default_pool_size`)",
        f"at most **{PgBouncerSettings.max_db_connections}** (`max_db_connections`)",
        f"waits {PgBouncerSettings.query_wait_timeout_seconds} s is told `query_wait_timeout`",
        f"a task with {DEFAULT_MEMORY_MIB} MiB: "
        f"**{PgBouncerSettings.max_db_client_connections:,}** a database, "
        f"{PgBouncerSettings.max_client_conn:,} in all",
        f"{CLIENT_KIB} KiB of memory for each client",
        f"left idle for {PgBouncerSettings.idle_transaction_timeout_seconds} s is closed",
        f"disconnected after {PgBouncerSettings.client_login_timeout_seconds} s",
    ):
        assert sentence in words


def test_the_connection_budget_is_that_of_the_settings() -> None:
    for server in ("primary", "recovery"):
        sums = [
            f"{plan.tasks} x {ROLLING_DEPLOYMENT} x {plan.pools} x {plan.pool_size} + {MIGRATIONS}"
            f" + {ADMINISTRATORS} + {RESERVED} = {plan.needed} of {plan.max_connections}"
            for settings in ENVIRONMENTS
            for plan in plan_budgets(settings)
            if plan.server == server
        ]
        assert f"| connections, {server} | {' | '.join(sums)} |" in README.text
        if server == "primary":
            assert sums[-1] in DOCUMENTS["docs/design.md"].words


def test_the_environments_table_is_that_of_the_settings() -> None:
    for row in (
        [
            f"{s.instance_class}, {s.storage_gib} to {s.storage_maximum_gib} GiB"
            for s in ENVIRONMENTS
        ],
        [f"{s.pooler_tasks} to {s.pooler_tasks_maximum}" for s in ENVIRONMENTS],
        ["yes" if s.is_multi_az else "no" for s in ENVIRONMENTS],
    ):
        assert f"| {' | '.join(row)} |" in README.text

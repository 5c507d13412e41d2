"""`make review` follows a changed file to the function and the image that hold it, and no other."""

from pathlib import PurePosixPath
from typing import Any

import pytest

from stacks.review.assets import judge_assets, read_image_source
from stacks.review.differences import StackPair
from tests.support.synthesis import PROJECT

_IMAGES = {name: f"images/{name}/Dockerfile" for name in ("flyway", "pgbouncer")}
_HASHES = {name: str(number) * 64 for number, name in enumerate(_IMAGES)}


@pytest.mark.parametrize(
    ("path", "images"),
    [
        ("db/migrations/V1__create_users.sql", {"flyway"}),
        ("db/callbacks/beforeMigrate__create_roles.sql", {"flyway"}),
        ("db/pgbouncer.py", {"pgbouncer"}),
        ("db/images/pgbouncer/entrypoint.py", {"pgbouncer"}),
        ("db/scram.py", {"flyway", "pgbouncer"}),
        ("db/parameters.py", set()),
        ("db/local/postgres.py", set()),
        ("db/migrations/__pycache__/x.pyc", set()),
    ],
)
def test_a_file_of_an_image_is_found(path: str, images: set[str]) -> None:
    assert {
        name
        for name, dockerfile in _IMAGES.items()
        if read_image_source(PROJECT, dockerfile).contains(PurePosixPath(path))
    } == images


def _build_template() -> dict[str, Any]:
    tasks = {
        name: {
            "Type": "AWS::ECS::TaskDefinition",
            "Properties": {"ContainerDefinitions": [{"Image": f"assets:{_HASHES[name]}"}]},
        }
        for name in _IMAGES
    }
    function = {
        "Type": "AWS::Lambda::Function",
        "Properties": {"Handler": "renew_passwords.renew.handle"},
    }
    return {"Resources": tasks | {"Renewal": function}}


def _name(*changed: str, old: dict[str, Any] | None = None) -> dict[str, str]:
    pair = StackPair(
        name="stack",
        environment="staging",
        stack="Pooling",
        old={"Resources": old} if old is not None else _build_template(),
        new=_build_template(),
    )
    verdicts = judge_assets(
        PROJECT,
        pair,
        pair.new,
        dockerfiles={_HASHES[name]: dockerfile for name, dockerfile in _IMAGES.items()},
        changed_files=changed,
    )
    return {verdict.subject.split()[1]: verdict.change for verdict in verdicts}


def test_the_function_and_the_task_of_a_changed_file_are_named() -> None:
    assert _name("db/pgbouncer.py", "README.md") == {
        "pgbouncer": "changed files: db/pgbouncer.py",
    }
    path = "stacks/handlers/renew_passwords/renew.py"
    assert _name(path) == {"Renewal": f"changed files: {path}"}
    assert _name("stacks/handlers/watch_migrations/watch.py", "docs/review.md") == {}


def test_a_function_that_is_new_has_no_changed_files() -> None:
    assert _name("stacks/handlers/renew_passwords/renew.py", old={}) == {}

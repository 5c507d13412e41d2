"""Which files an image is built from: the CDK and the tests take the same ones, and no others."""

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ecs as ecs

from db.flyway import DATABASE_FOLDER
from stacks.constructs.fargate import build_image
from stacks.environments import STAGING
from stacks.settings.base_image import BaseImage, render_base
from tests.support.containers import find_context

_IMAGES = ("flyway", "pgbouncer")


def _stage(folder: Path, image: str, output: Path) -> Path:
    """The folder that the CDK would build the image from; its name has the hash of its files."""
    app = cdk.App(outdir=str(output))
    task = ecs.FargateTaskDefinition(cdk.Stack(app, "Stack"), "Task")
    dockerfile = f"images/{image}/Dockerfile"
    task.add_container("It", image=build_image(STAGING, folder, dockerfile=dockerfile))
    app.synth()
    (staged,) = output.glob("asset.*")
    return staged


@pytest.mark.parametrize("image", _IMAGES)
def test_the_tests_build_an_image_from_the_files_that_the_cdk_sends(
    image: str, tmp_path: Path
) -> None:
    staged = _stage(DATABASE_FOLDER, image, tmp_path / "out")
    sent = {path.relative_to(staged) for path in staged.rglob("*") if path.is_file()}
    found = find_context(DATABASE_FOLDER, f"images/{image}/Dockerfile")
    assert sent == {path.relative_to(DATABASE_FOLDER) for path in found}


@pytest.mark.parametrize(
    ("changed", "rebuilt"),
    [
        ("migrations/V1__create_users.sql", {"flyway"}),
        ("images/flyway/entrypoint.py", {"flyway"}),
        ("scram.py", {"flyway", "pgbouncer"}),
        ("certificates/rds.pem", {"flyway", "pgbouncer"}),
        ("pgbouncer.py", {"pgbouncer"}),
        ("pgbouncer_proof.py", {"pgbouncer"}),
        ("images/pgbouncer/entrypoint.py", {"pgbouncer"}),
        ("local/commands.py", set()),
    ],
)
def test_a_changed_file_rebuilds_the_images_that_hold_it_and_no_other(
    changed: str, rebuilt: set[str], tmp_path: Path
) -> None:
    folder = tmp_path / "db"
    shutil.copytree(DATABASE_FOLDER, folder)
    before = {image: _stage(folder, image, tmp_path / f"{image}-1").name for image in _IMAGES}
    with (folder / changed).open("a", encoding="utf-8") as file:
        file.write("\n")
    after = {image: _stage(folder, image, tmp_path / f"{image}-2").name for image in _IMAGES}
    assert {image for image in _IMAGES if before[image] != after[image]} == rebuilt


def test_a_new_digest_or_a_later_date_rebuilds_the_images_on_that_base(tmp_path: Path) -> None:
    pinned = BaseImage(
        name="debian:trixie-slim",
        digest=f"sha256:{'1' * 64}",
        resolved=date(2026, 1, 31),
        packages={"apt": "3.0.3"},
    )
    bases = [
        BaseImage(name="debian:trixie-slim"),
        pinned,
        replace(pinned, resolved=date(2026, 2, 28)),
        replace(pinned, digest=f"sha256:{'2' * 64}"),
    ]
    folder = tmp_path / "db"
    shutil.copytree(DATABASE_FOLDER, folder)
    for image in _IMAGES:
        staged: set[str] = set()
        for number, base in enumerate(bases):
            (folder / "images" / "base.json").write_text(render_base(base), encoding="utf-8")
            output = tmp_path / f"{image}-{number}"
            staged.add(_stage(folder, image, output).name)
            assets = json.loads((output / "Stack.assets.json").read_text(encoding="utf-8"))
            (asset,) = assets["dockerImages"].values()
            assert asset["source"]["dockerBuildArgs"] == base.build_args
        assert len(staged) == len(bases)

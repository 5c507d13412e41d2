"""Each Lambda function has an asset of its own. It holds one folder and needs boto3 only."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_lambda as lambda_

from stacks.constructs import functions
from tests.support.synthesis import CONTEXT, Synthesis
from tests.support.templates import find

_FOLDERS = (
    "check_secret_copies",
    "measure_backups",
    "renew_tasks",
    "start_migrations",
    "storage_size",
    "watch_migrations",
)
# boto3 is in Lambda's Python. These are its dependencies; botocore uses certifi if it is there.
_BOTO3 = {"boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six", "certifi"}
# Imports a handler as Lambda does, and prints the top-level name of every module that it loaded.
_IMPORT_HANDLER = """
import importlib, json, sys
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
module, _, function = sys.argv[2].rpartition(".")
assert callable(getattr(importlib.import_module(module), function))
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(loaded - {"__mp_main__"})))
"""


@pytest.fixture(scope="module")
def assets(synthesis: Synthesis) -> dict[str, Path]:
    """The folder of each function's asset in the synthesized app, by handler."""
    found: dict[str, Path] = {}
    for template in synthesis.templates.values():
        for function in find(template, "AWS::Lambda::Function").values():
            if function["Runtime"].startswith("python"):
                digest = function["Code"]["S3Key"].removesuffix(".zip")
                found[function["Handler"]] = synthesis.folder / f"asset.{digest}"
    return found


def test_every_folder_of_handlers_is_one_function(assets: dict[str, Path]) -> None:
    folders = {path.parent.name for path in functions.HANDLERS.glob("*/handler.py")}
    assert {handler.split(".")[0] for handler in assets} == folders == set(_FOLDERS)
    assert len(assets) == len(set(assets.values())) == len(_FOLDERS)


@pytest.mark.parametrize("folder", _FOLDERS)
def test_an_asset_holds_the_folder_of_its_function_only(
    folder: str, assets: dict[str, Path]
) -> None:
    (asset,) = (path for handler, path in assets.items() if handler.startswith(f"{folder}."))
    held = {str(path.relative_to(asset)) for path in asset.rglob("*") if path.is_file()}
    expected = {str(path.relative_to(functions.HANDLERS)) for path in _find_sources(folder)}
    assert held == expected


def _find_sources(folder: str) -> list[Path]:
    return list((functions.HANDLERS / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", _FOLDERS)
def test_lambda_imports_the_handler_with_boto3_only(
    folder: str, assets: dict[str, Path], tmp_path: Path
) -> None:
    ((handler, asset),) = (item for item in assets.items() if item[0].startswith(f"{folder}."))
    finished = subprocess.run(
        [sys.executable, "-P", "-B", "-c", _IMPORT_HANDLER, str(asset), handler],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    loaded = set(json.loads(finished.stdout))
    assert folder in loaded
    assert loaded - sys.stdlib_module_names - _BOTO3 == {folder}


def test_a_change_in_one_folder_changes_one_asset(tmp_path: Path) -> None:
    handlers = tmp_path / "handlers"
    shutil.copytree(functions.HANDLERS, handlers)
    before = _hash_assets(handlers, tmp_path / "before")
    assert len(set(before.values())) == len(_FOLDERS)
    for changed in _FOLDERS:
        module = handlers / changed / "handler.py"
        module.write_text(module.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
        (handlers / changed / "__pycache__").mkdir(exist_ok=True)
        (handlers / changed / "__pycache__" / "x.pyc").write_bytes(changed.encode())
        after = _hash_assets(handlers, tmp_path / changed)
        assert {name for name in _FOLDERS if after[name] != before[name]} == {changed}
        before = after
    shutil.rmtree(handlers / "measure_backups" / "__pycache__")
    assert _hash_assets(handlers, tmp_path / "clean") == before, "compiled files do not count"


def _hash_assets(handlers: Path, output: Path) -> dict[str, str]:
    """The hash of each function's asset, from this copy of the handlers' folder."""
    app = cdk.App(context=CONTEXT, outdir=str(output))
    stack = cdk.Stack(app, "Stack")
    for folder in _FOLDERS:
        handler = f"{folder}.handler.handler"
        lambda_.Function(
            stack,
            folder,
            handler=handler,
            description=folder,
            runtime=lambda_.Runtime.PYTHON_3_14,
            code=functions.build_code(handler, handlers=handlers),
        )
    template = app.synth().get_stack_by_name("Stack").template
    return {
        function["Description"]: function["Code"]["S3Key"]
        for function in find(template, "AWS::Lambda::Function").values()
    }

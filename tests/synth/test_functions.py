"""Each Lambda function has an asset of its own. It holds one folder and needs boto3 only.

The asset of rotate_password also holds a driver of PostgreSQL and files of db/.
"""

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_lambda as lambda_

from stacks.constructs import functions, password_rotation
from stacks.constructs.bundled_code import bundle_code
from tests.support.synthesis import CONTEXT, PROJECT, Synthesis
from tests.support.templates import find

_FOLDERS = (
    "check_secret_copies",
    "measure_backups",
    "renew_tasks",
    "start_migrations",
    "storage_size",
    "watch_migrations",
)
_BUNDLED = "rotate_password"
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
    assert {handler.split(".")[0] for handler in assets} == folders
    assert folders == {*_FOLDERS, _BUNDLED}
    assert len(assets) == len(set(assets.values())) == len(folders)


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


@pytest.fixture
def bundled(assets: dict[str, Path]) -> Path:
    return assets[password_rotation.HANDLER]


def _find_held(asset: Path) -> set[str]:
    return {str(path.relative_to(asset)) for path in asset.rglob("*") if path.is_file()}


def test_the_asset_of_the_rotation_holds_its_folder_the_driver_and_files_of_db(
    bundled: Path,
) -> None:
    held = _find_held(bundled)
    own = {str(path.relative_to(functions.HANDLERS)) for path in _find_sources(_BUNDLED)}
    files = set(password_rotation.FILES)
    assert own | files <= held
    for file in files:
        assert (bundled / file).read_bytes() == (PROJECT / file).read_bytes()
    packages = {"pg8000", "scramp", "asn1crypto", "dateutil", "six.py"}
    information = {
        name
        for name in held
        if re.match(r"[\w.-]+\.dist-info/(METADATA$|(licenses/)?LICENSE)", name)
    }
    rest = {Path(name).parts[0] for name in held - own - files - information}
    assert rest == packages
    assert {name.partition("-")[0] for name in information} == {
        name.replace("-", "_") for name in password_rotation.DISTRIBUTIONS
    }
    assert not [name for name in held if name.endswith((".pyc", ".so")) or "__pycache__" in name]


def test_the_bundled_packages_are_the_driver_and_all_that_it_needs() -> None:
    needed, found = [password_rotation.DISTRIBUTIONS[0]], set()
    while needed:
        name = needed.pop()
        found.add(name)
        for requirement in metadata.requires(name) or ():
            if "extra ==" not in requirement:
                needed.append(re.split(r"[^\w.-]", requirement)[0].lower())
    assert found == set(password_rotation.DISTRIBUTIONS)
    pinned = (PROJECT / "requirements.txt").read_text(encoding="utf-8")
    for name in found:
        assert f"\n{name}==" in f"\n{pinned}", name


def test_lambda_imports_the_rotation_with_its_asset_alone(bundled: Path, tmp_path: Path) -> None:
    """boto3 is in Lambda's Python. An empty module stands in for it."""
    script = f"""
import sys, types
for name in ("boto3", "botocore", "botocore.config"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["botocore.config"].Config = dict
{_IMPORT_HANDLER}
from rotate_password.database import AUTHORITIES, DatabaseServer
assert AUTHORITIES.is_file() and str(AUTHORITIES).startswith(sys.argv[1])
DatabaseServer(host="x", port=1, name="x")._build_ssl_context()
"""
    finished = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", script, str(bundled), password_rotation.HANDLER],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    loaded = set(json.loads(finished.stdout)) - sys.stdlib_module_names - {"boto3", "botocore"}
    assert loaded == {_BUNDLED, "db", "pg8000", "scramp", "asn1crypto", "dateutil", "six"}


def test_a_bundled_asset_changes_with_its_own_files_only(tmp_path: Path) -> None:
    first = _hash_bundle(password_rotation.FILES, tmp_path / "first")
    assert _hash_bundle(password_rotation.FILES, tmp_path / "again") == first
    assert _hash_bundle((*password_rotation.FILES, "db/flyway.py"), tmp_path / "more") != first


def _hash_bundle(files: tuple[str, ...], output: Path) -> str:
    app = cdk.App(context=CONTEXT, outdir=str(output))
    stack = cdk.Stack(app, "Stack")
    with bundle_code(
        password_rotation.HANDLER, files=files, distributions=password_rotation.DISTRIBUTIONS
    ) as code:
        lambda_.Function(
            stack,
            "Function",
            handler=password_rotation.HANDLER,
            runtime=lambda_.Runtime.PYTHON_3_14,
            code=code,
        )
    template = app.synth().get_stack_by_name("Stack").template
    (function,) = find(template, "AWS::Lambda::Function").values()
    return str(function["Code"]["S3Key"])


def test_compiled_code_is_refused(tmp_path: Path) -> None:
    """The synth runs on another processor and another Python than Lambda."""
    with (
        pytest.raises(ValueError, match=r"psycopg-binary has compiled code, .*\.so"),
        bundle_code(password_rotation.HANDLER, files=(), distributions=("psycopg-binary",)),
    ):
        pass

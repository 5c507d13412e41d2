"""The asset of a Lambda function that needs more than its own folder."""

import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from aws_cdk import aws_lambda as lambda_

from stacks.constructs.functions import HANDLERS

_PROJECT = HANDLERS.parents[1]


@contextmanager
def bundle_code(
    handler: str, *, files: Sequence[str], distributions: Sequence[str]
) -> Generator[lambda_.AssetCode]:
    """An asset with the handler's folder, files of the project, and installed Python packages.

    `files` are relative to the project and keep their paths, so an import is the same on AWS and in
    the tests. `distributions` are the names of packages that requirements.txt pins. They are copied
    from the environment that runs this, so a synth downloads nothing.

    Build the function inside the block. The CDK copies the asset then.
    """
    folder = handler.split(".", maxsplit=1)[0]
    with TemporaryDirectory() as root:
        for source, target in (
            *_find_handler_files(folder),
            *((_PROJECT / name, Path(name)) for name in files),
            *(found for name in distributions for found in _find_distribution_files(name)),
        ):
            copy = Path(root) / target
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        yield lambda_.Code.from_asset(root)


def _find_handler_files(folder: str) -> Iterator[tuple[Path, Path]]:
    for source in (HANDLERS / folder).rglob("*.py"):
        yield source, source.relative_to(HANDLERS)


def _find_distribution_files(name: str) -> Iterator[tuple[Path, Path]]:
    """The files of an installed package that its wheel has. An installer adds files of its own."""
    for file in metadata.files(name) or ():
        is_program = ".." in file.parts
        is_metadata = file.parts[0].endswith(".dist-info")
        if is_program or file.suffix == ".pyc" or (is_metadata and not _is_kept(file.name)):
            continue
        if file.suffix in (".so", ".pyd"):
            raise ValueError(
                f"pyproject.toml: {name} has compiled code, {file.name}, which fits one processor "
                "and one version of Python; choose a package in pure Python for the function"
            )
        yield Path(str(file.locate())), Path(file)


def _is_kept(name: str) -> bool:
    """Packages read their version from METADATA. Their licenses demand that they are passed on."""
    return name == "METADATA" or "LICENSE" in name

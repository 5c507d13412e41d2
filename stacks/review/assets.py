"""Follows the assets to their files: the functions and images that get another content."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stacks.review.differences import StackPair, Template, describe
from stacks.review.stakes import TASK
from stacks.review.verdicts import Effect, Severity, Verdict

_FUNCTION = "AWS::Lambda::Function"
_HANDLERS = PurePosixPath("stacks/handlers")
_DATABASE = PurePosixPath("db")
_HASH = re.compile(r"[0-9a-f]{64}")
_SHOWN = 8
_FUNCTION_TEXT = "The next call of the function runs the new code. Nobody notices."
_IMAGE_TEXT = "The deploy builds a new image, and the next tasks run it."


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """The Dockerfile of an image, and the files of db/ that its .dockerignore lets in."""

    dockerfile: PurePosixPath
    included: tuple[PurePosixPath, ...]

    def contains(self, path: PurePosixPath) -> bool:
        return "__pycache__" not in path.parts and any(
            path == one or one in path.parents for one in self.included
        )


def read_image_source(project: Path, dockerfile: str) -> ImageSource:
    """The source of an image whose Dockerfile is in db/. Each line !name lets something in."""
    path = _DATABASE / dockerfile
    ignore = project / f"{path}.dockerignore"
    lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.exists() else ["!."]
    included = tuple(_DATABASE / line[1:].strip() for line in lines if line.startswith("!"))
    return ImageSource(dockerfile=path, included=included)


def read_dockerfiles(folder: Path) -> dict[str, str]:
    """The Dockerfile of each image asset, by its hash, from the manifests of a synth."""
    found: dict[str, str] = {}
    for path in folder.glob("*.assets.json"):
        images = json.loads(path.read_text(encoding="utf-8")).get("dockerImages", {})
        for image_hash, image in images.items():
            found[image_hash] = str(image["source"].get("dockerFile", "Dockerfile"))
    return found


def judge_assets(
    project: Path,
    pair: StackPair,
    template: Template,
    *,
    dockerfiles: dict[str, str],
    changed_files: Iterable[str],
) -> Iterator[Verdict]:
    """A verdict for each function and task definition whose files changed, and that is not new.

    `template` is the new one, with its asset hashes. `changed_files` are relative to the project.
    """
    changed = [PurePosixPath(name) for name in changed_files]
    for logical_id, resource in template.get("Resources", {}).items():
        if logical_id not in pair.old["Resources"]:
            continue
        if resource["Type"] == _FUNCTION:
            files, text = list(_find_function_files(resource, changed)), _FUNCTION_TEXT
        elif resource["Type"] == TASK:
            files = list(_find_image_files(project, resource, dockerfiles, changed))
            text = _IMAGE_TEXT
        else:
            continue
        if files:
            yield Verdict(
                environment=pair.environment,
                stack=pair.stack,
                subject=describe(logical_id, resource),
                effect=Effect.CHANGED,
                severity=Severity.NOTE,
                change=f"changed files: {_join(files)}",
                consequence=text,
            )


def _find_function_files(
    resource: Template, changed: list[PurePosixPath]
) -> Iterator[PurePosixPath]:
    """The handler is "folder.module.function", and the asset is that folder."""
    handler = str(resource["Properties"].get("Handler", ""))
    folder = _HANDLERS / handler.split(".", maxsplit=1)[0]
    for path in changed:
        if folder in path.parents and "__pycache__" not in path.parts:
            yield path


def _find_image_files(
    project: Path,
    resource: Template,
    dockerfiles: dict[str, str],
    changed: list[PurePosixPath],
) -> Iterator[PurePosixPath]:
    containers: Any = resource["Properties"].get("ContainerDefinitions", [])
    hashes = {found for one in containers for found in _HASH.findall(json.dumps(one.get("Image")))}
    for image_hash in sorted(hashes & dockerfiles.keys()):
        source = read_image_source(project, dockerfiles[image_hash])
        yield from (path for path in changed if source.contains(path))


def _join(files: list[PurePosixPath]) -> str:
    more = len(files) - _SHOWN
    return ", ".join(map(str, files[:_SHOWN])) + (f" and {more} more" if more > 0 else "")


def find_new_images(template: Template, verdicts: Iterable[Verdict]) -> set[str]:
    """The logical ids of the task definitions that a verdict of judge_assets names."""
    subjects = {verdict.subject for verdict in verdicts}
    return {
        logical_id
        for logical_id, resource in template.get("Resources", {}).items()
        if resource["Type"] == TASK and describe(logical_id, resource) in subjects
    }

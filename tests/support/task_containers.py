"""Runs a container of a task definition on this machine, as Fargate does on AWS."""

import copy
import re
import resource
import secrets
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import containers
from tests.support.containers import Image
from tests.support.synthesis import Template

_PATIENCE_SECONDS = 60  # also on a busy machine


@dataclass(frozen=True, kw_only=True)
class Run:
    """A running container: its process and its output."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self) -> int:
        return self.process.wait(_PATIENCE_SECONDS)

    def is_running(self) -> bool:
        return self.process.poll() is None

    def wait_for(self, pattern: str) -> str:
        """Wait for a line of its output that matches, and return the first."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            is_over = not self.is_running()
            for line in self.output().splitlines():
                if re.search(pattern, line):
                    return line
            assert not is_over, f"the container ended without {pattern!r}:\n{self.output()}"
            time.sleep(0.05)
        raise AssertionError(f"no {pattern!r} in:\n{self.output()}")


def find_container(template: Template) -> dict[str, Any]:
    """A copy of the one container of a template's one task definition."""
    (definition,) = (
        resource["Properties"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::ECS::TaskDefinition"
    )
    (container,) = definition["ContainerDefinitions"]
    return copy.deepcopy(container)


def get_environment(container: dict[str, Any]) -> dict[str, Any]:
    """The variables that the template passes. Some values are still CloudFormation's functions."""
    return {entry["Name"]: entry["Value"] for entry in container["Environment"]}


Start = Callable[..., Run]


@contextmanager
def starting(folder: Path) -> Generator[Start]:
    """The function that starts containers. Those that still run at the end are killed."""
    with ExitStack() as stack:

        def start(
            image: Image,
            container: dict[str, Any],
            *,
            environment: Mapping[str, str],
            secret_values: Mapping[str, str],
            mounts: Mapping[Path, str],
            command: tuple[str, ...] = (),
            memory_mib: int | None = None,
        ) -> Run:
            """Start a container with exactly the variables that the definition names."""
            assert environment.keys() == get_environment(container).keys()
            assert secret_values.keys() == {entry["Name"] for entry in container["Secrets"]}
            assert container["ReadonlyRootFilesystem"] is True
            name = f"cloudflow-test-{secrets.token_hex(4)}"
            log = folder / f"{name}.log"
            process = containers.start(
                image,
                name,
                environment={**environment, **secret_values},
                mounts=mounts,
                scratch=dict(_find_scratch(container)),
                descriptors=_find_descriptors(container),
                memory_mib=memory_mib,
                command=command,
                user=container["User"],
                output=log,
            )
            run = Run(name=name, process=process, log=log)
            stack.callback(_end, run)
            return run

        yield start


def _find_descriptors(container: dict[str, Any]) -> int:
    """The limit of file descriptors, or this machine's own limit if that is lower."""
    limits = {entry["Name"]: entry["HardLimit"] for entry in container.get("Ulimits", [])}
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(limits.get("nofile", 1024), hard_limit)


def _find_scratch(container: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The folders in memory and their options, as podman takes them.

    Podman can give such a folder to the container's own user only.
    """
    for entry in container.get("LinuxParameters", {}).get("Tmpfs", []):
        options = dict(option.split("=") for option in entry["MountOptions"])
        assert f"{options.pop('uid')}:{options.pop('gid')}" == container["User"]
        mode = options.pop("mode")
        assert not options
        yield str(entry["ContainerPath"]), f"tmpfs-size={entry['Size']}m,tmpfs-mode={mode},U=true"


def _end(run: Run) -> None:
    if run.is_running():
        containers.kill(run.name)
    run.wait()

"""The base of both images. db/images/base.json names it, and `make base` pins it."""

import json
import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from db.flyway import DATABASE_FOLDER

BASE_FILE = DATABASE_FOLDER / "images" / "base.json"
SHOWN = "db/images/base.json"  # as messages name it
_REPAIR = "restore the file with git checkout, then run make base"


@dataclass(frozen=True, kw_only=True)
class BaseImage:
    """A name such as debian:trixie-slim, and what it was when its digest was last resolved."""

    name: str
    digest: str | None = None
    resolved: date | None = None
    packages: dict[str, str] = field(default_factory=dict)  # the version of each package

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.:/-]+", self.name):
            raise ValueError(f"name is {self.name!r}; write one such as debian:trixie-slim")
        if self.digest is not None and not re.fullmatch("sha256:[0-9a-f]{64}", self.digest):
            raise ValueError(f"digest is {self.digest!r}; {_REPAIR}")
        if (self.digest is None) != (self.resolved is None):
            raise ValueError(f"digest or resolved is missing; {_REPAIR}")

    @property
    def build_args(self) -> dict[str, str]:
        """The build arguments of both Dockerfiles. Without a digest, a build takes the newest."""
        if self.digest is None or self.resolved is None:
            return {"BASE": self.name}
        # A later date makes new images even if the digest is as before. So the packages that the
        # Dockerfiles install become new too.
        return {"BASE": f"{self.name}@{self.digest}", "RESOLVED": self.resolved.isoformat()}


def read_base(file: Path = BASE_FILE) -> BaseImage:
    """The base that the file names. Raises ValueError if the content is wrong."""
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        resolved = content["resolved"]
        return BaseImage(
            name=content["name"],
            digest=content["digest"],
            resolved=date.fromisoformat(resolved) if resolved else None,
            packages=dict(content["packages"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{SHOWN}: {_describe(error)}") from None


def _describe(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing; {_REPAIR}"
    text = str(error)
    return text if _REPAIR in text or "write one" in text else f"{text}; {_REPAIR}"


def render_base(base: BaseImage) -> str:
    """The file's text. Each package has a line, so that a diff shows which packages changed."""
    content = {
        "name": base.name,
        "digest": base.digest,
        "resolved": base.resolved.isoformat() if base.resolved else None,
        "packages": dict(sorted(base.packages.items())),
    }
    return json.dumps(content, indent=2) + "\n"

"""Reads the README and docs/ as GitHub shows them: headings, links, code blocks, code spans."""

import re
import textwrap
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.support.synthesis import PROJECT

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block: its language and its text, without the indentation of a list."""

    language: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """One Markdown file, by its path within the project."""

    name: str
    text: str

    @cached_property
    def blocks(self) -> list[Block]:
        return [
            Block(language=match[2], text=textwrap.dedent(match[3]))
            for match in _FENCE.finditer(self.text)
        ]

    @cached_property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return _FENCE.sub("", self.text)

    @cached_property
    def words(self) -> str:
        """The prose in one line, to look for a sentence wherever it is wrapped."""
        return " ".join(self.prose.split())

    @cached_property
    def spans(self) -> list[str]:
        """What stands in backticks within the prose."""
        return [str(span) for span in _SPAN.findall(self.prose)]

    @cached_property
    def anchors(self) -> list[str]:
        """The anchors that GitHub gives to the headings, in their order."""
        found: list[str] = []
        for heading in _HEADING.findall(self.prose):
            anchor = build_anchor(heading)
            repeated = sum(other == anchor for other in map(build_anchor, found))
            found.append(f"{anchor}-{repeated}" if repeated else anchor)
        return found

    @cached_property
    def links(self) -> list[str]:
        return [str(link) for link in _LINK.findall(self.prose)]

    def of_language(self, *languages: str) -> list[str]:
        """The text of the blocks in these languages."""
        return [block.text for block in self.blocks if block.language in languages]

    def section(self, anchor: str) -> str:
        """What stands below a heading, up to the next heading of any level."""
        starts = [match for match in _HEADING.finditer(self.text) if not self._is_in_block(match)]
        number = self.anchors.index(anchor)
        end = starts[number + 1].start() if number + 1 < len(starts) else len(self.text)
        return self.text[starts[number].end() : end]

    def _is_in_block(self, match: re.Match[str]) -> bool:
        return any(
            block.start() <= match.start() < block.end() for block in _FENCE.finditer(self.text)
        )


def build_anchor(heading: str) -> str:
    """GitHub's anchor of a heading: lower case, hyphens for spaces, no other punctuation."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def read_documents(folder: Path = PROJECT) -> list[Document]:
    """The README first, then docs/."""
    return [
        Document(name=str(path.relative_to(folder)), text=path.read_text(encoding="utf-8"))
        for path in (folder / "README.md", *sorted((folder / "docs").glob("*.md")))
    ]

"""Prints on the terminal how far the run is, and at its end what was proven."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.support.scheduling import find_file

_SLOW_SECONDS = 5
_PROOF = "proven"


class Progress:
    """Prints a line for each test that took long, for each that failed, and for each file done."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter
        self._total = 0
        self._ended = 0
        self._left: Counter[str] = Counter()  # tests of each file that have not ended
        self._file_seconds: Counter[str] = Counter()
        self._test_seconds: Counter[str] = Counter()
        reporter.showfspath = False

    def expect(self, nodeids: Sequence[str]) -> None:
        """Note the tests of this run."""
        self._total = len(nodeids)
        self._left = Counter(map(find_file, nodeids))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:
            self.expect([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self.expect(ids) if not self._ended else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Each result is counted as always, but has no letter of its own."""
        if report.failed:
            return ("failed" if report.when == "call" else "error"), "", ""
        if report.skipped and not hasattr(report, "wasxfail"):
            return "skipped", "", ""
        if report.passed and report.when == "call":
            return "passed", "", ""
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        nodeid, file = report.nodeid, find_file(report.nodeid)
        self._test_seconds[nodeid] += report.duration
        self._file_seconds[file] += report.duration
        if report.failed:
            self._write(f"FAILED in {report.when}: {nodeid}")
        if report.when != "teardown":
            return
        self._ended += 1
        self._left[file] -= 1
        if self._test_seconds[nodeid] >= _SLOW_SECONDS:
            self._write(f"{self._test_seconds[nodeid]:4.0f} s  {nodeid}")
        if not self._left[file]:
            self._write(f"{self._file_seconds[file]:4.0f} s  {file}, the whole file")

    def _write(self, line: str) -> None:
        self._reporter.write_line(f"{self._ended:4} of {self._total}  {line}")


class Proofs:
    """Gathers the sentences that tests prove, from every worker, and prints them in the end."""

    def __init__(self) -> None:
        self._sentences: dict[str, list[str]] = {}
        self._order: dict[str, int] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            found = [str(value) for name, value in report.user_properties if name == _PROOF]
            self._sentences[report.nodeid] = found

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._order |= {item.nodeid: place for place, item in enumerate(session.items)}

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._order |= {nodeid: place for place, nodeid in enumerate(ids)}

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        # By file, and in a file as the tests stand there.
        nodeids = sorted(
            self._sentences, key=lambda nodeid: (find_file(nodeid), self._order.get(nodeid, 0))
        )
        sentences = [sentence for nodeid in nodeids for sentence in self._sentences[nodeid]]
        if sentences:
            terminalreporter.section(f"{len(sentences)} statements proven on real software")
            for sentence in sentences:
                terminalreporter.write_line(f"- {sentence}")


def build_prover(node: Any) -> Callable[[str], None]:  # noqa: ANN401
    """The function by which a test states what it has proven."""

    def prove(sentence: str) -> None:
        node.user_properties.append((_PROOF, sentence))

    return prove

"""The text of a failed deploy, as CloudFormation shows it in the events of the stack."""

import json
from dataclasses import dataclass

# CloudFormation accepts 4,096 bytes as the answer of a custom resource. The framework's own part
# takes less than 1,400 of them: names, ids, the function's log and a stack trace.
REASON_BYTES = 2500


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What failed, where and why, the steps to take, and their heading in the runbook."""

    what: str
    steps: tuple[str, ...]
    runbook: str

    def render(self, *, log: str) -> str:
        """The text that fits into the event. Only `what` is shortened, never the steps."""
        steps = "\n".join(f"{number}. {step}" for number, step in enumerate(self.steps, start=1))
        return fit(self.what, end=f"\n{steps}\nRunbook: {self.runbook}\nWhole output: {log}")


def fit(text: str, *, end: str, limit_bytes: int = REASON_BYTES) -> str:
    """The text and its end, in at most `limit_bytes` of JSON. A longer text loses its middle."""

    def measure(value: str) -> int:
        return len(json.dumps(value, ensure_ascii=False).encode())

    # A lone surrogate cannot be encoded as UTF-8. It becomes a question mark.
    text = text.encode("utf-8", errors="replace").decode()
    if measure(text + end) <= limit_bytes:
        return text + end
    cut = " [...] "
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        kept = text[: middle - middle // 3] + cut + text[len(text) - middle // 3 :]
        low, high = (middle, high) if measure(kept + end) <= limit_bytes else (low, middle - 1)
    return text[: low - low // 3] + cut + text[len(text) - low // 3 :] + end

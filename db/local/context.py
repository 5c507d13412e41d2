"""The instance, the tools and the state, which every step of a command uses."""

from dataclasses import dataclass

from db.local.instance import LocalInstance
from db.local.state import State
from db.local.tools import Tools


@dataclass(frozen=True, kw_only=True)
class Context:
    """One development database: its folder, the programs it runs, and its ports and passwords."""

    instance: LocalInstance
    tools: Tools
    state: State

"""What changes in the containers of a task definition, and in PgBouncer's settings."""

from collections.abc import Iterator
from typing import Any

from stacks.review.differences import PropertyChange, ResourceChange, ValueChange
from stacks.review.references import flatten, list_of
from stacks.review.values import show
from stacks.review.verdicts import Effect, Severity, Verdict, build_verdict

_CONTAINERS = "ContainerDefinitions"
_INI = "PGBOUNCER_INI"
# From the weakest to the strongest (PgBouncer's documentation, client_tls_sslmode).
_TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TLS_SETTINGS = ("client_tls_sslmode", "server_tls_sslmode")
# A limit that gets smaller, and what a client then sees.
_LIMITS = {
    "default_pool_size": "Fewer transactions run at once. The others wait in PgBouncer",
    "max_db_connections": "Fewer transactions run at once. The others wait in PgBouncer",
    "max_client_conn": "PgBouncer refuses the next client at once: no more connections allowed",
    "max_db_client_connections": "PgBouncer refuses the next client at once: client connections "
    "exceeded",
    "query_wait_timeout": "A client that waits for a server connection is refused sooner",
    "idle_transaction_timeout": "A client that is idle in a transaction is disconnected sooner",
}


def read_ini(containers: Any) -> dict[str, str]:  # noqa: ANN401
    """The settings of PgBouncer in the containers of a task. Empty if there are none."""
    for container in _by_name(containers).values():
        for variable in container.get("Environment") or []:
            if variable.get("Name") == _INI:
                lines = flatten(variable.get("Value")).splitlines()
                parts = [line.partition("=") for line in lines if not line.startswith(";")]
                return {key.strip(): value.strip() for key, mark, value in parts if mark}
    return {}


def judge_containers(change: ResourceChange) -> Iterator[Verdict]:
    """A verdict for each part of the containers that changes."""
    changed = change.find(_CONTAINERS)
    if changed is None:
        return
    old, new = _by_name(changed.old), _by_name(changed.new)
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new:
            verb = "is added" if name in new else "is removed"
            yield _note(change, f"container {name} {verb}")
        else:
            yield from _judge_container(change, name, old[name], new[name])
    yield from _judge_ini(change, changed)


def _by_name(containers: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401
    """The containers by name. A value that is no list of containers has none."""
    return {str(one.get("Name")): one for one in list_of(containers) if isinstance(one, dict)}


def _judge_container(
    change: ResourceChange, name: str, old: dict[str, Any], new: dict[str, Any]
) -> Iterator[Verdict]:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) == new.get(key):
            continue
        if key in ("Environment", "Secrets"):
            yield from _judge_named(change, f"{name}: ", old.get(key), new.get(key))
        elif isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            for part in sorted(old[key].keys() | new[key].keys()):
                values = ValueChange(old=old[key].get(part), new=new[key].get(part))
                if values.old != values.new:
                    yield _note(change, f"{name}: {part} {values}")
        else:
            values = ValueChange(old=old.get(key), new=new.get(key))
            yield _note(change, f"{name}: {key} {values}")


def _judge_named(
    change: ResourceChange, prefix: str, old: list[Any] | None, new: list[Any] | None
) -> Iterator[Verdict]:
    """The variables and secrets of a container. PgBouncer's own settings are judged apart."""
    before, after = (
        {one["Name"]: flatten(one.get("Value", one.get("ValueFrom"))) for one in values or []}
        for values in (old, new)
    )
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name) and name != _INI:
            values = ValueChange(old=before.get(name), new=after.get(name))
            yield _note(change, f"{prefix}{name} {values}")


def _judge_ini(change: ResourceChange, changed: PropertyChange) -> Iterator[Verdict]:
    old, new = read_ini(changed.old), read_ini(changed.new)
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        text = f"PgBouncer: {name} {show(before)} -> {show(after)}"
        if name in _TLS_SETTINGS:
            yield _judge_tls(change, text, before, after)
        elif name in _LIMITS and _is_smaller(before, after):
            yield build_verdict(
                change,
                effect=Effect.WEAKENED,
                severity=Severity.RISK,
                change=text,
                consequence=f"{_LIMITS[name]}.",
            )
        else:
            yield _note(change, text)


def _judge_tls(change: ResourceChange, text: str, before: str | None, after: str | None) -> Verdict:
    is_weaker = _rank_tls(after) < _rank_tls(before)
    return build_verdict(
        change,
        effect=Effect.WIDENED if is_weaker else Effect.NARROWED,
        severity=Severity.RISK,
        change=text,
        consequence="Connections need less protection than before."
        if is_weaker
        else "A client without this protection is refused.",
    )


def _rank_tls(mode: str | None) -> int:
    return _TLS_MODES.index(mode) if mode in _TLS_MODES else -1


def _is_smaller(before: str | None, after: str | None) -> bool:
    try:
        return int(after or "") < int(before or "")
    except ValueError:
        return True  # a limit that is gone, or that nobody can compare


def _note(change: ResourceChange, text: str) -> Verdict:
    return build_verdict(
        change,
        effect=Effect.CHANGED,
        severity=Severity.NOTE,
        change=text,
        consequence="The new tasks have it.",
    )

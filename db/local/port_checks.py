"""Checks the ports of a development database before its servers start."""

from dataclasses import replace

from db.local.access import DEFAULT_PORT
from db.local.instance import LocalInstance
from db.local.pooler import find_pooler
from db.local.ports import (
    describe_port_holder,
    find_free_port,
    find_loopback_addresses,
    is_port_free,
    read_first_unprivileged_port,
)
from db.local.postgres import find_postmaster
from db.local.processes import Processes
from db.local.report import CommandError
from db.local.state import State


def check_port(instance: LocalInstance, port: int | None) -> None:
    """Raises CommandError if PgBouncer cannot have the wanted port.

    The message names the process that has the port. `make up` checks this first: installing
    programs can take minutes.
    """
    state = instance.read_state() if instance.exists() else None
    wanted = port or (state.port if state else DEFAULT_PORT)
    if wanted < read_first_unprivileged_port() and instance.account.uid:
        raise CommandError(
            f"port {wanted} is reserved for root, and the servers run as user "
            f"{instance.account.name}; choose one above 1023, such as make up PORT=6432"
        )
    if state and wanted in (state.primary_port, state.replica_port):
        raise CommandError(
            f"port {wanted} belongs to a server of this database, behind the pool; choose another "
            "with make up PORT=6432"
        )
    if (state is None or wanted == state.port) and find_pooler(instance):
        return
    for address in find_loopback_addresses():
        if not is_port_free(address, wanted):
            raise CommandError(
                f"port {wanted} on {address} is in use by {describe_port_holder(wanted)}; "
                "stop it, or choose another port with make up PORT=6432"
            )


def replace_taken_ports(instance: LocalInstance, state: State, processes: Processes) -> State:
    """Give a stopped server another port if a process of someone else has its port now."""
    for name, data in (
        ("primary_port", instance.primary_data),
        ("replica_port", instance.replica_data),
    ):
        is_running = find_postmaster(data, processes) is not None
        if not is_running and not is_port_free("127.0.0.1", getattr(state, name)):
            highest = max(state.port, state.primary_port, state.replica_port)
            state = replace(state, **{name: find_free_port(after=highest)})
    return state

"""The three servers of a development database: primary, replica and PgBouncer."""

from collections.abc import Iterator
from dataclasses import dataclass

from db.local.context import Context
from db.local.instance import LocalInstance
from db.local.pooler import PgBouncer, build_logins, build_settings, stop_pooler
from db.local.postgres import Postgres, stop_postgres
from db.local.processes import Processes, find_processes

Server = Postgres | PgBouncer


@dataclass(frozen=True, kw_only=True)
class Servers:
    """The three servers, in the order in which they start."""

    primary: Postgres
    replica: Postgres
    pool: PgBouncer

    def __iter__(self) -> Iterator[Server]:
        return iter((self.primary, self.replica, self.pool))


def build_servers(context: Context) -> Servers:
    """The servers of a database. This starts nothing."""
    instance, state = context.instance, context.state
    return Servers(
        primary=Postgres(
            name="primary", context=context, data=instance.primary_data, port=state.primary_port
        ),
        replica=Postgres(
            name="replica", context=context, data=instance.replica_data, port=state.replica_port
        ),
        pool=PgBouncer(
            context=context,
            settings=build_settings(instance, state),
            logins=build_logins(state),
        ),
    )


def stop_all(instance: LocalInstance, processes: Processes | None = None) -> None:
    """Stop every server that runs in an instance's folder. PgBouncer is first: clients use it.

    This needs neither the programs nor the state, so it also works after the folder was deleted.
    """
    processes = processes or find_processes()
    stop_pooler(instance, processes)
    stop_postgres(instance.primary_data, processes)
    stop_postgres(instance.replica_data, processes)

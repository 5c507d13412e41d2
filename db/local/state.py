"""The ports and passwords of a development database, kept between commands."""

import secrets
from dataclasses import dataclass

from db import scram
from db.local.access import DEV_PASSWORD, DEV_USER, OWNER, POOLER_ADMIN, REPLICATOR, SUPERUSER
from db.local.ports import find_free_port


@dataclass(frozen=True, kw_only=True)
class State:
    """The ports and passwords of a development database. The first `make up` writes them to a file.

    `identity` is a random name, and each server reports it. `make up` checks it, so it notices a
    server of someone else on the same port.
    """

    identity: str
    port: int
    primary_port: int
    replica_port: int
    passwords: dict[str, str]
    verifiers: dict[str, str]


def build_state(port: int) -> State:
    """The state of a new database: PgBouncer on that port, the servers on free ports above it."""
    primary_port = find_free_port(after=port)
    passwords = {
        user: secrets.token_urlsafe(24) for user in (SUPERUSER, OWNER, REPLICATOR, POOLER_ADMIN)
    } | {DEV_USER: DEV_PASSWORD}
    return State(
        identity=secrets.token_hex(4),
        port=port,
        primary_port=primary_port,
        replica_port=find_free_port(after=primary_port),
        passwords=passwords,
        verifiers={user: scram.build_verifier(password) for user, password in passwords.items()},
    )

"""Runs the rotation of a password as Secrets Manager does. moto keeps the secrets."""

import json
import secrets
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from pg8000 import native

from db import roles, scram
from db.local.access import DEV_DATABASE, OWNER
from db.local.postgres import Postgres
from stacks.handlers.rotate_password.database import DatabaseServer, Session
from stacks.handlers.rotate_password.rotation import Rotation
from stacks.handlers.rotate_password.secret_versions import CURRENT, PENDING, Secret
from tests.support.tls_servers import Secure

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
REGION, COPY_REGION = "us-east-1", "us-west-2"
MASTER, POOLER = "master", "pgbouncer"  # the names of the secrets
PASSWORD_LENGTH = 40
FIRST_PASSWORD = "first"
LOCAL_HOST = "localhost"


@contextmanager
def moto_secrets() -> Generator[Any]:
    """A client of Secrets Manager in us-east-1, answered by moto."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        yield boto3.client("secretsmanager", region_name=REGION)


def make_secrets(client: Any, *, master: dict[str, Any], pooler_password: str) -> None:  # noqa: ANN401
    """The two secrets, with the fields of stacks/constructs/credentials.py and their copies."""
    shared = {"engine": "postgres", "host": "old.host", "port": 5432, "dbname": "cloudflow"}
    pooler = {"username": roles.POOLER_USERS[0], "password": pooler_password, "masterarn": "an ARN"}
    for name, content in {MASTER: shared | master, POOLER: shared | pooler}.items():
        client.create_secret(
            Name=name,
            SecretString=json.dumps(content),
            AddReplicaRegions=[{"Region": COPY_REGION}],
        )


@contextmanager
def deployed_secrets(
    secure: Secure, folder: Path, *, pooler_password: str
) -> Generator["Deployed"]:
    """Secrets that agree with the primary. Its certificate must be for LOCAL_HOST too."""
    server, master_password = secure.primary, secrets.token_hex(16)
    passwords = {OWNER: master_password, roles.POOLER_USERS[0]: pooler_password}
    for user, password in passwords.items():
        set_password(server, user, password)
    with moto_secrets() as client:
        master = {"username": OWNER, "password": master_password}
        make_secrets(client, master=master, pooler_password=pooler_password)
        yield Deployed(
            client=client,
            server=server,
            database=DatabaseServer(
                host=LOCAL_HOST,
                port=server.port,
                name=DEV_DATABASE,
                authorities=secure.write_authority(folder),
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """Secrets, and a server that agrees with them."""

    client: Any
    server: Postgres
    database: DatabaseServer

    def begin(self, name: str) -> Rotation:
        return build_rotation(self.client, name, begin(name), self.database)

    def rotate(self, name: str) -> dict[str, Any]:
        """Rotate a secret. Returns its new content."""
        run_steps(self.begin(name))
        return read(self.client, name)

    def can_log_in(self, content: dict[str, Any]) -> bool:
        session = self.database.log_in(content["username"], content["password"])
        if session:
            session.close()
        return session is not None

    def check(self) -> None:
        """A reader of a secret can log in with it."""
        for name in (MASTER, POOLER):
            assert self.can_log_in(read(self.client, name)), name

    def read_verifiers(self) -> dict[str, str]:
        rows = self.server.query("SELECT rolname, rolpassword FROM pg_authid")
        return {row["rolname"]: row["rolpassword"] for row in rows}


def set_password(server: Postgres, user: str, password: str) -> None:
    server.query(f"ALTER ROLE {user} PASSWORD '{scram.build_verifier(password)}'")


def read(client: Any, name: str, label: str = CURRENT) -> dict[str, Any]:  # noqa: ANN401
    answer = client.get_secret_value(SecretId=name, VersionStage=label)
    return dict(json.loads(answer["SecretString"]))


def begin(name: str, *, is_test: bool = False) -> str:
    """Begin a rotation: Secrets Manager makes an empty version. Returns its id.

    `is_test` is what Secrets Manager does when a deploy makes a schedule. The version then repeats
    the current content. moto has this only together with a function of its own, which it calls.
    """
    versions = get_backend("secretsmanager")[DEFAULT_ACCOUNT_ID][REGION].secrets[name].versions
    current: dict[str, Any] = {}
    for version in versions.values():
        if CURRENT in version["version_stages"]:
            current = version
        if PENDING in version["version_stages"]:
            version["version_stages"].remove(PENDING)
    token = str(uuid.uuid4())
    versions[token] = {
        "createdate": int(time.time()),
        "version_id": token,
        "version_stages": [PENDING],
        **({"secret_string": current["secret_string"]} if is_test else {}),
    }
    return token


def build_rotation(client: Any, name: str, token: str, database: Any) -> Rotation:  # noqa: ANN401
    return Rotation(
        secret=Secret(client=client, secret_id=name),
        master=Secret(client=client, secret_id=MASTER),
        token=token,
        database=database,
        region=REGION,
        copy_region=COPY_REGION,
        password_length=PASSWORD_LENGTH,
    )


def run_steps(rotation: Rotation, first: str = STEPS[0]) -> None:
    """Run the steps from one of them on."""
    for step in STEPS[STEPS.index(first) :]:
        rotation.run(step)


class KilledError(BaseException):
    """The function ends at this point. No code of the function may catch this."""


@dataclass(kw_only=True)
class Interruption:
    """Ends a rotation after one of its calls of AWS or PostgreSQL, and before it sees the answer.

    A rotation that ends before a call leaves the same behind as one that ends after the call before
    that.
    """

    number: int
    calls: list[str] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)

    def wrap(self, rotation: Rotation) -> Rotation:
        def follow(secret: Secret) -> Secret:
            return replace(secret, client=_Followed(secret.client, self))

        return replace(
            rotation,
            secret=follow(rotation.secret),
            master=follow(rotation.master),
            database=_Followed(rotation.database, self),
        )

    def call(self, name: str, function: Callable[..., Any], args: Any, named: Any) -> Any:  # noqa: ANN401
        if len(self.calls) >= self.number:
            return None  # the process has ended; Python still leaves its `with` blocks
        self.calls.append(name)
        try:
            result = function(*args, **named)
            if isinstance(result, Session):
                self.sessions.append(result)
        finally:
            if len(self.calls) == self.number:
                self._end_sessions()
                raise KilledError
        return _Followed(result, self) if isinstance(result, Session) else result

    def _end_sessions(self) -> None:
        """The end of a process closes its connections."""
        for session in self.sessions:
            with suppress(native.InterfaceError):  # it is closed already
                session.close()


class _Followed:
    """Passes each call on, if the interruption lets it."""

    def __init__(self, target: Any, interruption: Interruption) -> None:  # noqa: ANN401
        self._target = target
        self._interruption = interruption

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def call(*args: Any, **named: Any) -> Any:  # noqa: ANN401
            return self._interruption.call(name, found, args, named)

        return call

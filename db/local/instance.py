"""One development database on this machine: its folders, ports and secrets."""

import fcntl
import json
import os
import secrets
import shutil
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO

from db import scram
from db.local.processes import Account, find_account, find_loopback_addresses, is_port_free
from db.local.report import CommandError
from db.migrations import FOLDER as MIGRATIONS_FOLDER
from db.pgbouncer import Login, PgBouncerSettings, Route

PROJECT = Path(__file__).resolve().parents[2]
HOME = PROJECT / ".local" / "dev"

DEV_DATABASE = "cloudflow_dev"
DEV_READONLY_DATABASE = "cloudflow_dev_readonly"
DEV_USER, DEV_PASSWORD = "dev", "password"  # the mission's, and loopback only
SUPERUSER = "postgres"
OWNER = "cloudflow_owner"
REPLICATOR = "replicator"
POOLER_ADMIN = "pgbouncer_admin"
SLOT = "replica"

DEFAULT_PORT = 5432


@dataclass(frozen=True, kw_only=True)
class State:
    """What an instance remembers between commands; its file is written when it first came up.

    The identity tells our servers from others that answer on the same port.
    """

    identity: str
    port: int
    primary_port: int
    replica_port: int
    passwords: dict[str, str]
    verifiers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class LocalInstance:
    """Where everything of one development database lives."""

    home: Path = HOME
    migrations: Path = MIGRATIONS_FOLDER

    @property
    def account(self) -> Account:
        """The user that the servers run as."""
        return find_account()

    @property
    def primary_data(self) -> Path:
        """The primary's data directory."""
        return self.home / "primary"

    @property
    def replica_data(self) -> Path:
        """The replica's data directory."""
        return self.home / "replica"

    @property
    def pooler_ini(self) -> Path:
        """The rendered pgbouncer.ini."""
        return self.home / "pgbouncer.ini"

    @property
    def auth_file(self) -> Path:
        """PgBouncer's auth file; verifiers only, mode 0600."""
        return self.home / "userlist.txt"

    @property
    def passfile(self) -> Path:
        """libpq's password file for all of this instance's users, mode 0600."""
        return self.home / "pgpass"

    @property
    def initdb_password(self) -> Path:
        """The superuser's password for initdb, there while it runs; mode 0600."""
        return self.home / "initdb.password"

    def log(self, part: str) -> Path:
        """The log of a part: primary, replica or pool."""
        return self.home / "logs" / f"{part}.log"

    @property
    def _state_file(self) -> Path:
        return self.home / "state.json"

    def exists(self) -> bool:
        """Whether this instance was ever set up."""
        return self._state_file.exists()

    def read_state(self) -> State:
        """What this instance remembers. Raises CommandError when it was never up, or is not ours."""
        try:
            values = json.loads(self._state_file.read_text(encoding="utf-8"))
            return State(**{field.name: values[field.name] for field in fields(State)})
        except FileNotFoundError:
            raise CommandError(
                f"there is no development database in {self.home}: make up"
            ) from None
        except PermissionError:
            raise CommandError(
                f"{self.home} was made by another user, or by root: work as that one, "
                "or choose another folder with --home"
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise CommandError(
                f"{self._state_file} is damaged ({error!r}): restore it, or move {self.home} away "
                "to begin anew"
            ) from None

    def ensure_state(self, *, port: int | None) -> State:
        """What this instance remembers, with the port asked for; made and kept where it is new."""
        if not self.exists() and (self.primary_data.exists() or self.replica_data.exists()):
            raise CommandError(
                f"{self._state_file} is missing, and with it the passwords of the data beside it: "
                f"restore it, or move {self.home} away to begin anew"
            )
        if self.exists():
            state = self.read_state()
            return replace(state, port=port or state.port)
        chosen = port or DEFAULT_PORT
        primary_port = find_free_port(after=chosen)
        passwords = {
            user: secrets.token_urlsafe(24) for user in (SUPERUSER, OWNER, REPLICATOR, POOLER_ADMIN)
        } | {DEV_USER: DEV_PASSWORD}
        state = State(
            identity=secrets.token_hex(4),
            port=chosen,
            primary_port=primary_port,
            replica_port=find_free_port(after=primary_port),
            passwords=passwords,
            verifiers={user: scram.build_verifier(word) for user, word in passwords.items()},
        )
        self.write_state(state)
        return state

    def write_state(self, state: State) -> None:
        """Remember that state, and the files that follow from it."""
        self.write(self._state_file, json.dumps(asdict(state), indent=2) + "\n", mode=0o600)
        lines = [f"*:*:*:{user}:{password}" for user, password in state.passwords.items()]
        self.write(self.passfile, "\n".join(lines) + "\n", mode=0o600)

    def build_pooler(self, state: State) -> PgBouncerSettings:
        """PgBouncer's settings on this machine; only addresses and names differ from AWS."""
        return PgBouncerSettings(
            routes=(
                Route(
                    name=DEV_DATABASE,
                    host="127.0.0.1",
                    port=state.primary_port,
                    database=DEV_DATABASE,
                ),
                Route(
                    name=DEV_READONLY_DATABASE,
                    host="127.0.0.1",
                    port=state.replica_port,
                    database=DEV_DATABASE,
                ),
            ),
            listen_addresses=find_loopback_addresses(),
            listen_port=state.port,
            auth_file=str(self.auth_file),
            admin_user=POOLER_ADMIN,
        )

    def build_logins(self, state: State) -> tuple[Login, ...]:
        """Who may log in to PgBouncer."""
        return tuple(
            Login(user=user, verifier=state.verifiers[user]) for user in (DEV_USER, POOLER_ADMIN)
        )

    def write(self, path: Path, text: str, *, mode: int = 0o644) -> None:
        """Replace a file atomically, readable by the servers; one that is equal is left alone."""
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        partial = path.with_name(f"{path.name}.partial")
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if self.account.is_other:
                os.fchown(descriptor, self.account.uid, self.account.gid)
            file.write(text)
        partial.replace(path)

    def give(self, path: Path) -> None:
        """Make the servers' account the owner of a path."""
        if self.account.is_other:
            os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)

    def open_log(self, part: str) -> IO[bytes]:
        """A part's log, to be added to; never through a link, for root writes it."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        return os.fdopen(os.open(self.log(part), flags, 0o644), "ab")

    def ensure_folders(self) -> None:
        """Make the home folder. Raises CommandError where the servers could not reach it."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            is_ours = self.exists() or (self.home / "lock").exists()
            if not is_ours and any(self.home.iterdir()):
                raise CommandError(
                    f"{self.home} holds other things: name a new or empty one in --home"
                )
        except OSError as error:
            raise CommandError(
                f"{error.filename}: {error.strerror}; choose another with --home"
            ) from None
        if set(str(self.home)) & set("'\"\\\n"):
            raise CommandError(f"{self.home} has a quote or backslash in its name: use --home")
        for folder in self.home.parents:
            if not self._can_enter(folder):
                raise CommandError(
                    f"the servers run as {self.account.name}, who may not enter {folder}: "
                    f"chmod a+x {folder}, or choose another folder with --home"
                )
        if not os.access(self.home, os.W_OK | os.X_OK):
            raise CommandError(
                f"{self.home} is not writable for this user: choose another with --home"
            )
        (self.home / "logs").mkdir(exist_ok=True)
        for folder in (self.home, self.home / "logs"):
            self.give(folder)

    def _can_enter(self, folder: Path) -> bool:
        if not self.account.is_other:
            return os.access(folder, os.X_OK)
        status = folder.stat()
        if status.st_uid == self.account.uid:
            return bool(status.st_mode & 0o100)
        if status.st_gid == self.account.gid:
            return bool(status.st_mode & 0o010)
        return bool(status.st_mode & 0o001)

    @contextmanager
    def lock(self) -> Generator[None]:
        """Only one command changes an instance at a time. Raises CommandError when another does."""
        self.ensure_folders()
        with (self.home / "lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise CommandError(
                    f"process {file.read().strip()} is at work on {self.home}: wait for it"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def destroy(self) -> None:
        """Delete what this instance made, and nothing else that may lie in its folder.

        Only `reset` calls this, after an explicit yes.
        """
        for path in (
            self.primary_data,
            self.replica_data,
            self.primary_data.with_suffix(".partial"),
            self.replica_data.with_suffix(".partial"),
            self.home / "logs",
        ):
            shutil.rmtree(path, ignore_errors=not path.exists())
        for path in (
            self.pooler_ini,
            self.auth_file,
            self.passfile,
            self.initdb_password,
            self.home / "pgbouncer",
            self.home / "lock",
            self._state_file,
        ):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # something else lies there
            self.home.rmdir()


def find_free_port(*, after: int) -> int:
    """The first free port of the loopback addresses above that one."""
    for port in range(after + 1, 65536):
        if all(is_port_free(address, port) for address in find_loopback_addresses()):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

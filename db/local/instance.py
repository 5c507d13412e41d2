"""The folder of one development database: its files, its lock, and the checks on it."""

import fcntl
import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO

from db.local.access import DEFAULT_PORT
from db.local.accounts import Account, find_account, find_user_name
from db.local.folders import DEFAULT_HOME
from db.local.report import CommandError
from db.local.state import State, build_state
from db.migrations import FOLDER as MIGRATIONS_FOLDER


@dataclass(frozen=True, kw_only=True)
class LocalInstance:
    """One development database, as its folder, and the folder of the migrations it gets."""

    home: Path = DEFAULT_HOME
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
    def pooler_program(self) -> Path:
        """The copy of PgBouncer's program that runs."""
        return self.home / "pgbouncer"

    @property
    def auth_file(self) -> Path:
        """PgBouncer's auth file. It holds only SCRAM verifiers; its mode is 0600."""
        return self.home / "userlist.txt"

    @property
    def certificate(self) -> Path:
        """The certificate that PgBouncer shows to clients."""
        return self.home / "tls" / "certificate.pem"

    @property
    def key(self) -> Path:
        """The key of that certificate; its mode is 0600."""
        return self.home / "tls" / "key.pem"

    @property
    def passfile(self) -> Path:
        """libpq's password file for all users of this database; its mode is 0600."""
        return self.home / "pgpass"

    @property
    def initdb_password(self) -> Path:
        """The superuser's password for initdb. The file exists while initdb runs; mode 0600."""
        return self.home / "initdb.password"

    @property
    def _state_file(self) -> Path:
        return self.home / "state.json"

    @property
    def _lock_file(self) -> Path:
        return self.home / "lock"

    def log(self, server: str) -> Path:
        """The log of a server: primary, replica or pool."""
        return self.home / "logs" / f"{server}.log"

    def exists(self) -> bool:
        """Whether this database was ever set up."""
        return self._state_file.exists()

    def read_state(self) -> State:
        """The ports and passwords. Raises CommandError if there are none, or none we can read."""
        try:
            values = json.loads(self._state_file.read_text(encoding="utf-8"))
            return State(**{field.name: values[field.name] for field in fields(State)})
        except FileNotFoundError:
            raise CommandError(
                f"there is no development database in {self.home}; run make up"
            ) from None
        except PermissionError:
            raise CommandError(
                f"{self.home} belongs to another user, or to root; run the command as that user, "
                "or set CLOUDFLOW_HOME or --home to another folder"
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise CommandError(
                f"{self._state_file} is damaged ({error!r}); restore it, or move {self.home} away "
                "to begin with a new database"
            ) from None

    def ensure_state(self, *, port: int | None) -> State:
        """The state with the wanted port. Builds and writes it if this database is new."""
        if not self.exists() and (self.primary_data.exists() or self.replica_data.exists()):
            raise CommandError(
                f"{self._state_file} is missing, and it held the passwords of the data in "
                f"{self.home}; restore it, or move {self.home} away to begin with a new database"
            )
        if self.exists():
            state = self.read_state()
            return replace(state, port=port or state.port)
        state = build_state(port or DEFAULT_PORT)
        self.write_state(state)
        return state

    def write_state(self, state: State) -> None:
        """Write libpq's password file that follows from the state, then the state.

        The state is last. If `up` is killed in between, the next `up` makes both again.
        """
        lines = [f"*:*:*:{user}:{password}" for user, password in state.passwords.items()]
        self.write(self.passfile, "\n".join(lines) + "\n", mode=0o600)
        self.write(self._state_file, json.dumps(asdict(state), indent=2) + "\n", mode=0o600)

    def write(self, path: Path, text: str, *, mode: int = 0o644) -> None:
        """Replace a file atomically, and give it to the servers' account.

        A file with the same text is left alone.
        """
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        partial = _name_partial(path)
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

    def open_log(self, server: str) -> IO[bytes]:
        """Open a server's log to add to it. Root writes here, so a symbolic link is refused."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        return os.fdopen(os.open(self.log(server), flags, 0o644), "ab")

    def ensure_folders(self) -> None:
        """Make the home folder. Raises CommandError if it cannot be used."""
        self._make_home()
        self._check_home()
        # The lock file is first: it marks the folder as ours, for the next command.
        self._lock_file.touch()
        logs = self.home / "logs"
        logs.mkdir(exist_ok=True)
        for folder in (self.home, logs):
            self.give(folder)

    def _make_home(self) -> None:
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            is_ours = self.exists() or self._lock_file.exists()
            if not is_ours and any(self.home.iterdir()):
                raise CommandError(
                    f"{self.home} holds other things; set CLOUDFLOW_HOME or --home to an "
                    "empty folder"
                )
        except OSError as error:
            raise CommandError(
                f"{error.filename}: {error.strerror}; set CLOUDFLOW_HOME or --home to another "
                "folder"
            ) from None

    def _check_home(self) -> None:
        if set(str(self.home)) & set("'\"\\\n"):
            raise CommandError(
                f"{self.home} has a quote, a backslash or a line break in its name; set "
                "CLOUDFLOW_HOME or --home to another folder"
            )
        for folder in self.home.parents:
            if not self._can_enter(folder):
                raise CommandError(
                    f"the servers run as user {self.account.name}, who may not enter {folder}; run "
                    f"chmod a+x {folder}, or set CLOUDFLOW_HOME or --home to another folder"
                )
        self._check_owner()
        if not os.access(self.home, os.W_OK | os.X_OK):
            raise CommandError(
                f"this user may not write to {self.home}; set CLOUDFLOW_HOME or --home to another "
                "folder"
            )

    def _check_owner(self) -> None:
        """Refuse root in another user's folder. Root would give that user's files away."""
        owner = self.home.stat().st_uid
        is_ours = owner in (os.geteuid(), self.account.uid)
        # In a container, root is often the only user, in a folder of a user without a name.
        if not os.geteuid() and not is_ours and find_user_name(owner) != str(owner):
            raise CommandError(
                f"{self.home} belongs to {find_user_name(owner)}; run the command as that user, "
                "without sudo"
            )

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
        """Let only one command change this database at a time.

        Raises CommandError while another command holds the lock.
        """
        self.ensure_folders()
        with self._lock_file.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise CommandError(
                    f"process {file.read().strip()} is at work on {self.home}; wait for it to end"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def destroy(self) -> None:
        """Delete the files of this database, and no other file of the folder.

        Only `reset` calls this, after an explicit yes.
        """
        for path in (
            self.primary_data,
            self.replica_data,
            self.primary_data.with_suffix(".partial"),
            self.replica_data.with_suffix(".partial"),
            self.certificate.parent,
            self.certificate.parent.with_suffix(".partial"),
            self.home / "logs",
        ):
            shutil.rmtree(path, ignore_errors=not path.exists())
        for path in (
            self.pooler_ini,
            self.auth_file,
            self.passfile,
            self.initdb_password,
            self.pooler_program,
            self._lock_file,
            self._state_file,
        ):
            path.unlink(missing_ok=True)
            _name_partial(path).unlink(missing_ok=True)
        with suppress(OSError):  # the folder holds files of someone else
            self.home.rmdir()


def _name_partial(path: Path) -> Path:
    """The name of a file while it is written."""
    return path.with_name(f"{path.name}.partial")

"""The four steps of a rotation. A step that failed can be repeated, alone or from the first step.

PgBouncer has two users. A rotation changes the password of the user that is not in use, so running
tasks keep a valid password. The master user is one user and changes its own password. In both cases
the master logs in.

The steps keep one rule: before a password is sent to the server, a version of the secret has it.
"""

import secrets
import string
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from db.roles import POOLER_USERS

from .database import DatabaseServer, Session
from .secret_versions import CURRENT, PENDING, PREVIOUS, Content, Secret

_RUNBOOK = "docs/runbook.md#rotation-failed"
# Letters and digits only, so that a password needs no escaping in a URL.
_ALPHABET = string.ascii_letters + string.digits
# The states in which Secrets Manager keeps a copy of a secret up to date.
_COPIED = {"InSync", "InProgress", "Pending"}


class RotationRefusedError(Exception):
    """The rotation would do harm, or cannot succeed. The message has the remedy."""


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """One rotation of one secret.

    `token` is the id of the new version. `region` is the region of the function. `copy_region` is
    the region to which Secrets Manager copies the secret, if there is one.
    """

    secret: Secret
    master: Secret
    token: str
    database: DatabaseServer
    region: str
    copy_region: str | None
    password_length: int

    def run(self, step: str) -> str:
        """Run one step. Returns what was done.

        Raises RotationRefusedError if the rotation must not go on.
        """
        steps = {
            "createSecret": self._create_secret,
            "setSecret": self._set_secret,
            "testSecret": self._test_secret,
            "finishSecret": self._finish_secret,
        }
        described = self.secret.describe()
        self._check_region(described)
        labels = described["VersionIdsToStages"].get(self.token, [])
        if CURRENT in labels:
            return "nothing to do: the new version is current already"
        if PENDING not in labels:
            raise RotationRefusedError(
                f"version {self.token} of {described['Name']} has no label {PENDING}, so it "
                f"belongs to no rotation; start one with aws secretsmanager rotate-secret: "
                f"{_RUNBOOK}"
            )
        return steps[step](described)

    def _create_secret(self, described: dict[str, Any]) -> str:
        """Write a new password into the new version. A repetition keeps the first one."""
        if self.secret.read(PENDING, VersionId=self.token) is not None:
            return "nothing to do: the new version has a password already"
        self._check_copy(described)
        current = self._read_current()
        user = _choose_user(current)
        with self._logged_in_as_master() as session:
            _check_unused(session, user, current)
        password = "".join(secrets.choice(_ALPHABET) for _ in range(self.password_length))
        # A copy from another region names the host of that region.
        changed = {"username": user, "password": password, "host": self.database.host}
        self.secret.write_pending(self.token, current | changed)
        return f"the new version has a new password for {user}"

    def _set_secret(self, _described: dict[str, Any]) -> str:
        """Give the server the verifier of the new password."""
        pending, current = self._read_pending(), self._read_current()
        user = _choose_user(current)
        if pending["username"] != user:
            raise RotationRefusedError(
                f"the new version is for {pending['username']}, and the next user is {user}; "
                f"somebody changed the secret during the rotation: {_RUNBOOK}"
            )
        with self._logged_in_as_master() as session:
            _check_unused(session, user, current)
            session.change_password(user, pending["password"])
        return f"PostgreSQL has the new password of {user}"

    def _test_secret(self, _described: dict[str, Any]) -> str:
        """Log in with the new version."""
        # When a deploy makes a schedule, Secrets Manager tests it. It runs this step alone, with a
        # version that repeats the current content. So the user may be the one that is in use.
        user = self._log_in_with_pending()
        return f"PostgreSQL takes the new password of {user}"

    def _finish_secret(self, described: dict[str, Any]) -> str:
        """Let readers get the new version."""
        # The server may have got another password since the test, so this logs in once more.
        user = self._log_in_with_pending()
        versions = described["VersionIdsToStages"].items()
        (current,) = (version for version, labels in versions if CURRENT in labels)
        self.secret.make_current(self.token, instead_of=current)
        return f"readers of the secret get {user} with its new password"

    def _check_region(self, described: dict[str, Any]) -> None:
        """Refuse the copy of a secret. Its region has no writer, or the promotion is not done."""
        primary_region = described.get("PrimaryRegion") or self.region
        if primary_region != self.region:
            raise RotationRefusedError(
                f"{described['Name']} in {self.region} is a copy of the secret in "
                f"{primary_region}, so it cannot be rotated here. If {self.region} has taken over, "
                "run: aws secretsmanager stop-replication-to-replica "
                f"--region {self.region} --secret-id {described['Name']}"
            )

    def _check_copy(self, described: dict[str, Any]) -> None:
        """Refuse if the copy is detached. The other region may have taken over."""
        if self.copy_region is None:
            return
        states = {copy["Region"]: copy["Status"] for copy in described.get("ReplicationStatus", [])}
        state = states.get(self.copy_region, "missing")
        if state not in _COPIED:
            raise RotationRefusedError(
                f"the copy of {described['Name']} in {self.copy_region} is {state}. If "
                f"{self.copy_region} has taken over, nothing may be rotated in {self.region}. "
                f"Otherwise the copy would keep an old password: {_RUNBOOK}"
            )

    def _read_current(self) -> Content:
        content = self.secret.read(CURRENT)
        if content is None:
            raise RotationRefusedError(
                f"{self.secret.secret_id} has no version {CURRENT}: {_RUNBOOK}"
            )
        return content

    def _read_pending(self) -> Content:
        content = self.secret.read(PENDING, VersionId=self.token)
        if content is None:
            raise RotationRefusedError(
                f"version {self.token} has no password, because createSecret did not end; start "
                f"the rotation again: {_RUNBOOK}"
            )
        return content

    @contextmanager
    def _logged_in_as_master(self) -> Generator[Session]:
        with closing(self._log_in_as_master()) as session:
            self._refuse_standby(session)
            yield session

    def _log_in_as_master(self) -> Session:
        """A session of the master user.

        A rotation of the master's password may have stopped at any point, or is going on now. So
        the server has the password of the current version or of the pending one. A server that was
        restored from a backup may have the previous one.
        """
        tried: set[str] = set()
        for label in (CURRENT, PENDING, PREVIOUS):
            content = self.master.read(label)
            if content is None or content["password"] in tried:
                continue
            tried.add(content["password"])
            session = self.database.log_in(content["username"], content["password"])
            if session:
                return session
        raise RotationRefusedError(
            f"PostgreSQL at {self.database.host} refuses the master's password in all "
            f"{len(tried)} versions of {self.master.secret_id}; give RDS the current one: "
            f"{_RUNBOOK}"
        )

    def _log_in_with_pending(self) -> str:
        """Log in with the new version, and return its user."""
        pending = self._read_pending()
        user = str(pending["username"])
        session = self.database.log_in(user, pending["password"])
        if not session:
            raise RotationRefusedError(
                f"PostgreSQL at {self.database.host} refuses the new password of {user}, so the "
                f"secret keeps its present version; start the rotation again: {_RUNBOOK}"
            )
        with closing(session):
            self._refuse_standby(session)
        return user

    def _refuse_standby(self, session: Session) -> None:
        if session.is_standby():
            raise RotationRefusedError(
                f"{self.database.host} is a standby, and passwords are rotated in the region of "
                f"the primary only; nothing was changed: {_RUNBOOK}"
            )


def _choose_user(current: Content) -> str:
    """The user that gets the new password: PgBouncer's other user, or the master itself."""
    user = str(current["username"])
    if user not in POOLER_USERS:
        return user
    (other,) = (name for name in POOLER_USERS if name != user)
    return other


def _check_unused(session: Session, user: str, current: Content) -> None:
    """Refuse to change the password of a user that has sessions on the primary."""
    if user == current["username"]:
        return  # the master's sessions stay open, and each new task reads the secret
    in_use = session.count_sessions(user)
    if in_use:
        raise RotationRefusedError(
            f"{in_use} sessions still use {user}, whose password this rotation would change. The "
            "tasks of PgBouncer were not replaced after the last rotation. Replace them, then "
            "rotate again: docs/runbook.md#renewal-failed"
        )

"""The user that the servers run as."""

import functools
import os
import pwd
from dataclasses import dataclass

from db.local.report import CommandError

# Debian's PostgreSQL package creates this user. PostgreSQL and PgBouncer refuse to run as root.
_SERVER_ACCOUNT = "postgres"


@dataclass(frozen=True, kw_only=True)
class Account:
    """The user that the servers run as.

    This is the user who typed the command. If that user is root, it is an unprivileged user, and
    `is_other` is true.
    """

    name: str
    uid: int
    gid: int
    is_other: bool


@functools.cache
def find_account() -> Account:
    """The servers' account. Raises CommandError if this machine has no such user.

    A container often runs as a user id without a name. initdb and psql look the name up, and fail.
    """
    uid = os.geteuid()
    if uid:
        name = find_user_name(uid)
        if name == str(uid):
            raise CommandError(
                f"user id {uid} has no name on this machine, and PostgreSQL needs one; as root, "
                f"run useradd --uid {uid} developer"
            )
        return Account(name=name, uid=uid, gid=os.getegid(), is_other=False)
    try:
        entry = pwd.getpwnam(_SERVER_ACCOUNT)
    except KeyError:
        raise CommandError(
            f"PostgreSQL does not run as root, and this machine has no user {_SERVER_ACCOUNT} to "
            f"run it as; create the user: useradd --system {_SERVER_ACCOUNT}"
        ) from None
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, is_other=True)


def find_user_name(uid: int) -> str:
    """The name of a user, or the number itself if /etc/passwd does not list it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

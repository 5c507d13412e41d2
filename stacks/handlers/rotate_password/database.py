"""The PostgreSQL server whose passwords change, by the driver pg8000."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from pg8000 import native

from db import scram

# The certificate authorities of RDS lie beside db/scram.py, in the project and in the asset.
AUTHORITIES = Path(scram.__file__).parent / "certificates" / "rds.pem"

_APPLICATION_NAME = "password-rotation"
# PostgreSQL's code for a wrong password, an unknown user, and a user without a password.
_INVALID_PASSWORD = "28P01"
_TIMEOUT_SECONDS = 10
# The server gives up earlier than the client, so that nothing is left running.
_SERVER_TIMEOUTS = {"statement_timeout": "8s", "lock_timeout": "5s"}


@dataclass(frozen=True, kw_only=True)
class Session:
    """A login at the server."""

    connection: native.Connection

    def is_standby(self) -> bool:
        """Whether the server replays the WAL of another one, and refuses to write."""
        ((answer,),) = self.connection.run("SELECT pg_is_in_recovery()")
        return bool(answer)

    def count_sessions(self, user: str) -> int:
        """The sessions of a user on this server, without the sessions of rotations."""
        ((count,),) = self.connection.run(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE usename = :user AND application_name <> :own",
            user=user,
            own=_APPLICATION_NAME,
        )
        return int(count)

    def change_password(self, user: str, password: str) -> None:
        """Send the verifier of a password. The server, and its log, never get the password."""
        verifier = scram.build_verifier(password)
        self.connection.run(
            f"ALTER ROLE {native.identifier(user)} PASSWORD {native.literal(verifier)}"
        )

    def close(self) -> None:
        self.connection.close()


@dataclass(frozen=True, kw_only=True)
class DatabaseServer:
    """The server's address. It must have a certificate for its host from one of the authorities."""

    host: str
    port: int
    name: str
    authorities: Path = AUTHORITIES

    def log_in(self, user: str, password: str) -> Session | None:
        """A session, or None if the server refuses the password."""
        try:
            connection = native.Connection(
                user,
                host=self.host,
                port=self.port,
                database=self.name,
                password=password,
                ssl_context=self._build_ssl_context(),
                timeout=_TIMEOUT_SECONDS,
                application_name=_APPLICATION_NAME,
                startup_params=dict(_SERVER_TIMEOUTS),
            )
        except native.DatabaseError as error:
            fields = error.args[0]
            if isinstance(fields, dict) and fields.get("C") == _INVALID_PASSWORD:
                return None
            raise
        return Session(connection=connection)

    def _build_ssl_context(self) -> ssl.SSLContext:
        """The checks of libpq's verify-full, which PgBouncer makes too."""
        context = ssl.create_default_context(cafile=str(self.authorities))
        # Python 3.13 and later also refuse certificates that lack optional fields of RFC 5280. The
        # authorities of RDS do not promise these fields.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

"""SCRAM-SHA-256 verifiers, as PostgreSQL stores them and as PgBouncer's auth file holds them.

The verifier is made here, before it is sent. The server then never gets the password as plain text,
and no log can show it.
"""

import base64
import hashlib
import hmac
import secrets

_ITERATIONS = 4096  # fixed in PostgreSQL 15; PostgreSQL 16 has the setting scram_iterations
_SALT_BYTES = 16  # SCRAM_DEFAULT_SALT_LEN in PostgreSQL's scram-common.h


def build_verifier(password: str, *, salt: bytes | None = None) -> str:
    """The verifier of a password. Without a salt it uses a new random one.

    Raises ValueError for a password that is not printable ASCII. SASLprep may change such a
    password, and PostgreSQL's verifier could then differ from this one.
    """
    if not password or not password.isascii() or not password.isprintable():
        raise ValueError("a password must be printable ASCII and not empty")
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")

    def encode(raw: bytes) -> str:
        return base64.b64encode(raw).decode()

    return f"SCRAM-SHA-256${_ITERATIONS}:{encode(salt)}${encode(stored_key)}:{encode(server_key)}"

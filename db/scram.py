"""SCRAM-SHA-256 verifiers, as PostgreSQL stores them and PgBouncer's auth file takes them.

Who makes the verifier itself sends no plaintext to the server, so none can reach a log.
"""

import base64
import hashlib
import hmac
import secrets

_ITERATIONS = 4096  # PostgreSQL 15's own, fixed until scram_iterations came with 16
_SALT_BYTES = 16  # SCRAM_DEFAULT_SALT_LEN in PostgreSQL's scram-common.h


def build_verifier(password: str, *, salt: bytes | None = None) -> str:
    """The verifier of a password; a new random salt unless one is given.

    Raises ValueError where SASLprep would change the password (anything but printable ASCII):
    PostgreSQL and we could then disagree about it.
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

"""The certificate that clients of localhost's PgBouncer see, as they do on AWS.

The certificate signs itself, so it keeps traffic secret and proves no name to clients that ask an
authority. A client that gets the file as its authority can check the name too.
"""

import shutil

from db.local.instance import LocalInstance
from db.local.programs import run
from db.local.report import CommandError

_DAYS = 365
_RENEWED_SECONDS = 30 * 24 * 3600  # before the end
_NAMES = "DNS:localhost,IP:127.0.0.1,IP:::1"


def is_certificate_good(instance: LocalInstance) -> bool:
    """Whether there is a certificate with its key, and it does not end soon."""
    if not (instance.certificate.exists() and instance.key.exists()):
        return False
    status, _ = run(
        [
            "openssl", "x509", "-noout", "-in", str(instance.certificate),
            "-checkend", str(_RENEWED_SECONDS),
        ],
        folder=instance.home,
    )  # fmt: skip
    return status == 0


def ensure_certificate(instance: LocalInstance) -> None:
    """Make the certificate and its key if they are missing or end soon. Raises CommandError.

    Both are made in another folder, which is renamed at the end. An interrupted run leaves no key
    without its certificate.
    """
    if is_certificate_good(instance):
        return
    folder = instance.certificate.parent
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    instance.give(partial)
    key = partial / instance.key.name
    status, output = run(
        [
            "openssl", "req", "-x509", "-config", "/dev/null",
            "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc",
            "-keyout", str(key), "-out", str(partial / instance.certificate.name),
            "-subj", "/CN=localhost", "-addext", f"subjectAltName={_NAMES}", "-days", str(_DAYS),
        ],
        folder=instance.home,
        account=instance.account,
    )  # fmt: skip
    if status:
        raise CommandError(
            f"openssl made no certificate for localhost, and failed with status {status}; its "
            "messages are above",
            detail=output,
        )
    key.chmod(0o600)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)

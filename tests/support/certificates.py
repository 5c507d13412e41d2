"""A certificate authority for the tests. RDS has such an authority in each region."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_VALID = timedelta(days=1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """Issues certificates that are valid for a day."""

    def __init__(self, name: str) -> None:
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._begin(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, host: str, *others: str, is_expired: bool = False) -> tuple[str, str]:
        """A key and a certificate for the names of a host, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._begin(_name(host), key, is_expired=is_expired)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in (host, *others)]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return pem.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()

    def _begin(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_expired: bool = False
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC) - (2 * _VALID if is_expired else timedelta())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _VALID)
            .not_valid_after(now + _VALID)
        )

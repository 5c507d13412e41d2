"""The table of PostgreSQL parameters."""

from db.local.postgres import LOCALHOST_SETTINGS
from db.parameters import PARAMETERS, SetBy, localhost_parameters, rds_parameters
from db.pgbouncer import PgBouncerSettings


def test_every_parameter_stands_once_and_has_a_reason() -> None:
    names = [parameter.name for parameter in PARAMETERS]
    assert len(set(names)) == len(names)
    assert all(parameter.why and parameter.value for parameter in PARAMETERS)


def test_parameters_that_rds_sets_itself_are_in_no_parameter_group() -> None:
    by_rds = {p.name for p in PARAMETERS if p.set_by is SetBy.RDS}
    assert by_rds
    assert not by_rds & rds_parameters().keys()
    only_there = {p.name for p in PARAMETERS if p.set_by is SetBy.ONLY_ON_RDS}
    assert all(name.startswith("rds.") for name in only_there)
    assert localhost_parameters().keys() == rds_parameters().keys() - only_there | by_rds


def test_max_connections_has_room_for_two_full_pgbouncers_and_people() -> None:
    assert int(rds_parameters()["max_connections"]) >= 2 * PgBouncerSettings.max_db_connections + 20


def test_localhost_overrides_no_parameter_of_the_shared_table() -> None:
    assert not LOCALHOST_SETTINGS.keys() & localhost_parameters().keys()


def test_pgbouncer_ends_an_idle_transaction_before_postgresql_does() -> None:
    milliseconds = int(rds_parameters()["idle_in_transaction_session_timeout"])
    assert milliseconds > PgBouncerSettings.idle_transaction_timeout_seconds * 1000


def test_no_statement_is_logged_because_of_its_kind() -> None:
    assert rds_parameters()["log_statement"] == "none"
    assert rds_parameters()["password_encryption"] == "scram-sha-256"

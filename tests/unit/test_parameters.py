"""The one table of PostgreSQL parameters."""

from db.local.postgres import LOCALHOST_SETTINGS
from db.parameters import PARAMETERS, SetBy, localhost_parameters, rds_parameters
from db.pgbouncer import PgBouncerSettings


def test_every_parameter_stands_once_and_has_a_reason() -> None:
    names = [parameter.name for parameter in PARAMETERS]
    assert len(set(names)) == len(names)
    assert all(parameter.why and parameter.value for parameter in PARAMETERS)


def test_what_rds_sets_by_itself_is_never_in_its_parameter_group() -> None:
    by_rds = {p.name for p in PARAMETERS if p.set_by is SetBy.RDS}
    assert by_rds
    assert not by_rds & rds_parameters().keys()
    only_there = {p.name for p in PARAMETERS if p.set_by is SetBy.ONLY_ON_RDS}
    assert all(name.startswith("rds.") for name in only_there)
    assert localhost_parameters().keys() == rds_parameters().keys() - only_there | by_rds


def test_the_servers_hold_two_full_poolers_and_the_people_who_mend_them() -> None:
    assert int(rds_parameters()["max_connections"]) >= 2 * PgBouncerSettings.max_db_connections + 20


def test_this_machine_overrides_nothing_of_the_shared_table() -> None:
    assert not LOCALHOST_SETTINGS.keys() & localhost_parameters().keys()


def test_postgresql_gives_up_an_idle_transaction_after_pgbouncer_does() -> None:
    milliseconds = int(rds_parameters()["idle_in_transaction_session_timeout"])
    assert milliseconds > PgBouncerSettings.idle_transaction_timeout_seconds * 1000


def test_no_statement_is_logged_for_what_it_is() -> None:
    assert rds_parameters()["log_statement"] == "none"
    assert rds_parameters()["password_encryption"] == "scram-sha-256"

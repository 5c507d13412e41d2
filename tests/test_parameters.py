"""The one table of PostgreSQL parameters."""

from db.parameters import PARAMETERS, Owner, localhost_parameters, rds_parameters
from db.pgbouncer import Pooler


def test_every_parameter_stands_once_and_has_a_reason() -> None:
    names = [parameter.name for parameter in PARAMETERS]
    assert len(set(names)) == len(names)
    assert all(parameter.why and parameter.value for parameter in PARAMETERS)


def test_what_rds_sets_by_itself_is_never_in_its_parameter_group() -> None:
    by_rds = {p.name for p in PARAMETERS if p.owner is Owner.RDS}
    assert by_rds
    assert not by_rds & rds_parameters().keys()
    assert localhost_parameters().keys() == rds_parameters().keys() | by_rds


def test_the_servers_hold_more_than_one_full_pool() -> None:
    assert int(rds_parameters()["max_connections"]) > Pooler.max_db_connections


def test_postgresql_gives_up_an_idle_transaction_after_pgbouncer_does() -> None:
    milliseconds = int(rds_parameters()["idle_in_transaction_session_timeout"])
    assert milliseconds > Pooler.idle_transaction_timeout_seconds * 1000


def test_no_password_can_reach_the_statement_log() -> None:
    assert rds_parameters()["log_statement"] == "none"
    assert rds_parameters()["password_encryption"] == "scram-sha-256"

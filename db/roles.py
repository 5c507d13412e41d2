"""The database's roles by name; db/callbacks/beforeMigrate__create_roles.sql makes them.

The owner, which makes them, is no superuser. It has CREATEROLE on localhost because RDS's master
user has it.
"""

WRITERS = "cloudflow_writer"  # a group: reads and writes rows, cannot change the schema
READERS = "cloudflow_reader"  # a group: reads rows; for people and reports
# PgBouncer's own users towards the server. Secrets Manager's rotation alternates between a name
# and that name with _clone.
POOLER_USERS = ("pgbouncer", "pgbouncer_clone")


def build_session_options(app_user: str, verifiers: dict[str, str]) -> str:
    """libpq's `options` for Flyway's connections: what the callback reads, and one safeguard.

    `verifiers` are SCRAM verifiers (db/scram.py) by user. As settings of the connection they stand
    in no statement, and so in no log; a user that is made without one cannot log in.
    """
    settings = {
        # A session ends within a second of its Flyway, however long its statement: PostgreSQL
        # would otherwise go on, with its locks, beside the next one.
        "client_connection_check_interval": "1s",
        "cloudflow.app_user": app_user,
    } | {f"cloudflow.verifier_{user}": verifier for user, verifier in verifiers.items()}
    return " ".join(f"-c {name}={value}" for name, value in settings.items())

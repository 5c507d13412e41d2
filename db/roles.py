"""The names of the database's roles. db/callbacks/beforeMigrate__create_roles.sql makes them.

The schema's owner makes the roles. The owner has CREATEROLE and is no superuser, as on RDS.
"""

WRITERS = "cloudflow_writer"  # a group: may read and write rows, and may not change the schema
READERS = "cloudflow_reader"  # a group: may read rows; for people and reports
# PgBouncer logs in to PostgreSQL as one of these users. Secrets Manager's rotation alternates
# between a user and the user of the same name with _clone.
POOLER_USERS = ("pgbouncer", "pgbouncer_clone")


def build_session_options(app_user: str, verifiers: dict[str, str]) -> str:
    """libpq's `options` for Flyway's connections: the callback's settings, and one safeguard.

    `verifiers` holds SCRAM verifiers (db/scram.py) by user. They are settings of the connection,
    not part of a statement, so no log shows them. A user without a verifier cannot log in.
    """
    settings = {
        # If Flyway is killed, PostgreSQL notices it within a second and ends the session. Without
        # this, a long statement would go on, and hold its locks while the next Flyway runs.
        "client_connection_check_interval": "1s",
        "cloudflow.app_user": app_user,
    } | {f"cloudflow.verifier_{user}": verifier for user, verifier in verifiers.items()}
    return " ".join(f"-c {name}={value}" for name, value in settings.items())

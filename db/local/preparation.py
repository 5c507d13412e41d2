"""Prepares a running primary for the migrations: its roles, its database, the replica's slot.

On AWS, RDS does this. All other roles are made by Flyway's callback, on AWS and here
(db/callbacks/beforeMigrate__create_roles.sql).
"""

from db.local.access import DEV_DATABASE, DEV_USER, OWNER, REPLICATOR, SLOT
from db.local.postgres import Postgres

# CREATEROLE lets the owner make roles, as RDS's master user may. On this machine such a role can
# also run programs as the servers' account. Only the user of this command has the owner's password.
_ROLES = {OWNER: "LOGIN CREATEROLE", REPLICATOR: "LOGIN REPLICATION"}


def prepare_primary(primary: Postgres) -> None:
    """Make the roles, the database and the slot that are missing, and restore changed passwords.

    The connection string is documented, so the application's password is restored too. Passwords
    are sent as SCRAM verifiers. No log can then show a password as plain text.
    """
    verifiers = primary.context.state.verifiers
    create = "".join(
        f"""
        SELECT $$CREATE ROLE {name} {attributes} PASSWORD '{verifiers[name]}'$$
         WHERE to_regrole('{name}') IS NULL \\gexec
        """
        for name, attributes in _ROLES.items()
    )
    restore_passwords = "".join(
        f"""
        SELECT $$ALTER ROLE {name} PASSWORD '{verifiers[name]}'$$ FROM pg_authid
         WHERE rolname = '{name}' AND rolpassword IS DISTINCT FROM '{verifiers[name]}' \\gexec
        """
        for name in (*_ROLES, DEV_USER)
    )
    primary.query(
        f"""{create}{restore_passwords}
        SELECT 'ALTER ROLE {OWNER} CREATEROLE' FROM pg_roles
         WHERE rolname = '{OWNER}' AND NOT rolcreaterole \\gexec
        SELECT 'CREATE DATABASE {DEV_DATABASE} OWNER {OWNER}'
         WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DEV_DATABASE}') \\gexec
        SELECT pg_create_physical_replication_slot('{SLOT}', true)
         WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{SLOT}');
        """
    )

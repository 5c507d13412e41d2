"""The database names, users and port that clients and operators use on AWS."""

DATABASE = "cloudflow"
READONLY_DATABASE = "cloudflow_readonly"  # PgBouncer's name for the database on the replicas
PORT = 5432
APP_USER = "app"
# Clients log in to PgBouncer as one of these. With two users, a client can move to a new password
# while other clients still use the old one.
CLIENT_USERS = (APP_USER, "app_b")
MASTER_USER = "cloudflow_master"  # owns the schema; Flyway logs in with it
# Letters and digits only, so that a password needs no escaping in a URL. 40 of them are 238 bits.
PASSWORD_LENGTH = 40

"""The databases and users of the development database, and its default port.

stacks/settings/access.py holds the names on AWS.
"""

DEFAULT_PORT = 5432  # PgBouncer's

DEV_DATABASE = "cloudflow_dev"
DEV_READONLY_DATABASE = "cloudflow_dev_readonly"  # PgBouncer's name for the same on the replica

# The application's user. Its password is public, since it stands in the documented connection
# string. The servers listen on loopback addresses only.
DEV_USER = "dev"
DEV_PASSWORD = "password"

SUPERUSER = "postgres"
OWNER = "cloudflow_owner"  # owns the database and runs the migrations, as RDS's master user does
REPLICATOR = "replicator"
POOLER_ADMIN = "pgbouncer_admin"
SLOT = "replica"  # the replication slot

"""The PostgreSQL extensions that a migration may create.

Each of them belongs to PostgreSQL 15 itself, so localhost has it. Each is also in RDS's parameter
rds.extensions, so the master user may create it there. Before you add a name, read that parameter:
SHOW rds.extensions;
https://docs.aws.amazon.com/AmazonRDS/latest/PostgreSQLReleaseNotes/postgresql-extensions.html
"""

# PostgreSQL lets the owner of a database create these.
TRUSTED = (
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dict_int",
    "fuzzystrmatch",
    "hstore",
    "intarray",
    "isn",
    "ltree",
    "pg_trgm",
    "pgcrypto",
    "tablefunc",
    "tsm_system_rows",
    "tsm_system_time",
    "unaccent",
    "uuid-ossp",
)

# PostgreSQL lets only a superuser create these. RDS lets its master user do it, which is no
# superuser. Localhost lets the owner do it while Flyway runs (db/local/extensions.py).
CREATED_BY_RDS_MASTER = (
    "amcheck",
    "bloom",
    "dblink",
    "dict_xsyn",
    "earthdistance",
    "intagg",
    "pg_buffercache",
    "pg_freespacemap",
    "pg_prewarm",
    "pg_stat_statements",
    "pg_visibility",
    "pgrowlocks",
    "pgstattuple",
    "postgres_fdw",
    "sslinfo",
)

EXTENSIONS = tuple(sorted((*TRUSTED, *CREATED_BY_RDS_MASTER)))

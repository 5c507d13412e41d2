"""Flyway's command line and environment, the same on localhost and on AWS.

db/local/migrating.py runs Flyway on localhost, db/images/flyway/entrypoint.py runs it on AWS.
"""

from pathlib import Path

DATABASE_FOLDER = Path(__file__).resolve().parent
IMAGE_FOLDER = DATABASE_FOLDER / "images" / "flyway"
CALLBACKS = DATABASE_FOLDER / "callbacks"
AUTHORITIES = DATABASE_FOLDER / "certificates" / "rds.pem"  # they sign RDS's certificates

APPLICATION = "flyway"  # the application_name of Flyway's sessions

JAVA_MAJOR_MINIMUM = 17  # Flyway 12 is compiled for Java 17
# Flyway runs for about a second. The first compiler tier and the serial collector start fastest.
JAVA_OPTIONS = (
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    # Flyway reads flyway.toml and flyway.user.toml in Java's user.home, and the JDBC driver reads
    # .pgpass and .postgresql there. Those files may belong to another project. HOME does not change
    # user.home: Java takes it from /etc/passwd.
    f"-Duser.home={IMAGE_FOLDER}",
)


def build_command(java: str, jars: list[Path], verb: str, *arguments: str) -> list[str]:
    """The command that runs Flyway with exactly these jars, in this order."""
    return [
        java,
        *JAVA_OPTIONS,
        "-cp",
        ":".join(str(jar) for jar in jars),
        "org.flywaydb.commandline.Main",
        f"-configFiles={IMAGE_FOLDER / 'flyway.toml'}",
        "-skipCheckForUpdate",
        *arguments,
        verb,
    ]


def build_url(host: str, port: int, database: str, *, authorities: str = "") -> str:
    """The JDBC address of the primary.

    Flyway must not go through PgBouncer: Flyway holds a lock in its session, and PgBouncer gives
    each transaction another session. With a file of `authorities`, the server must show a
    certificate that they signed and that holds the server's name.
    """
    url = f"jdbc:postgresql://{host}:{port}/{database}?ApplicationName={APPLICATION}"
    url += "&tcpKeepAlive=true"  # the connection stays silent while a statement runs for an hour
    return f"{url}&sslmode=verify-full&sslrootcert={authorities}" if authorities else url


def build_environment(*, url: str, user: str, password: str, options: str) -> dict[str, str]:
    """The whole environment of Flyway. Unlike arguments, the process list does not show it.

    Flyway, Java and the JDBC driver read many variables (FLYWAY_*, JAVA_TOOL_OPTIONS,
    _JAVA_OPTIONS, PGPASSFILE and others). So Flyway inherits none. `options` are the options of its
    sessions (db/roles.py).
    """
    return {
        "FLYWAY_URL": url,
        "FLYWAY_USER": user,
        "FLYWAY_PASSWORD": password,
        "FLYWAY_JDBC_PROPERTIES_options": options,
        "REDGATE_DISABLE_TELEMETRY": "true",
        # Java reads file names in this locale. With C, it could not open a path that is not ASCII.
        "LC_ALL": "C.UTF-8",
        # The session's time zone is Java's. A migration may write now() to a TIMESTAMP column.
        "TZ": "UTC",
    }


def find_callbacks() -> list[Path]:
    """The SQL files that Flyway runs before the migrations, in its order."""
    return sorted(CALLBACKS.glob("beforeMigrate__*.sql"))

"""The one set of Flyway settings: its command line and its environment.

Localhost runs Flyway with these, and so does the image's entry point on AWS.
"""

from pathlib import Path

DATABASE_FOLDER = Path(__file__).resolve().parent
IMAGE_FOLDER = DATABASE_FOLDER / "images" / "flyway"
CALLBACKS = DATABASE_FOLDER / "callbacks"
AUTHORITIES = DATABASE_FOLDER / "certificates" / "rds.pem"  # that RDS's servers show

APPLICATION = "flyway"  # its sessions' application_name

JAVA_MAJOR_MINIMUM = 17  # Flyway 12's class files are Java 17's
# Flyway lives for a second: the first compiler tier and the smallest collector start fastest.
JAVA_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


def build_command(java: str, jars: list[Path], verb: str, *arguments: str) -> list[str]:
    """The command that runs Flyway on exactly these jars (no wildcard: an order that is fixed)."""
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
    """The JDBC address of the primary: never PgBouncer's, whose transactions hold no lock of a
    session. With a file of `authorities` the server must show a certificate of its own name.
    """
    url = f"jdbc:postgresql://{host}:{port}/{database}?ApplicationName={APPLICATION}"
    url += "&tcpKeepAlive=true"  # a statement of an hour is silent as long
    return f"{url}&sslmode=verify-full&sslrootcert={authorities}" if authorities else url


def build_environment(*, url: str, user: str, password: str, options: str) -> dict[str, str]:
    """What Flyway reads from its environment: a password in it is not in the process list.

    `options` are those of its sessions (db/roles.py).
    """
    return {
        "FLYWAY_URL": url,
        "FLYWAY_USER": user,
        "FLYWAY_PASSWORD": password,
        "FLYWAY_JDBC_PROPERTIES_options": options,
        "REDGATE_DISABLE_TELEMETRY": "true",
    }

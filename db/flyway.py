"""The one set of Flyway settings: command line, environment, and the migrations it applies.

Localhost runs Flyway with these, and so does the image's entry point on AWS.
"""

import codecs
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

DATABASE_FOLDER = Path(__file__).resolve().parent
IMAGE_FOLDER = DATABASE_FOLDER / "images" / "flyway"
MIGRATIONS = DATABASE_FOLDER / "migrations"
CALLBACKS = DATABASE_FOLDER / "callbacks"
AUTHORITIES = DATABASE_FOLDER / "certificates" / "rds.pem"  # that RDS's servers show

APPLICATION = "flyway"  # its sessions' application_name

JAVA_MAJOR_MINIMUM = 17  # Flyway 12's class files are Java 17's
# Flyway lives for a second: the first compiler tier and the smallest collector start fastest.
JAVA_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

_NAME = re.compile(r"V(?P<version>[0-9]+(?:[._][0-9]+)*)__(?P<description>.+)\.sql")


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One versioned migration file: what Flyway will call it, and its checksum."""

    version: str
    description: str
    script: str
    checksum: int


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


def calculate_checksum(script: bytes) -> int:
    """Flyway's checksum: CRC32 over the lines without their ends, as a signed 32-bit integer."""
    crc = 0
    for line in re.split(rb"\r\n|\r|\n", script.removeprefix(codecs.BOM_UTF8)):
        crc = zlib.crc32(line, crc)
    return crc - (1 << 32) if crc >= 1 << 31 else crc


def calculate_checksums(folder: Path = MIGRATIONS) -> dict[str, int]:
    """The checksum of every SQL file of a folder, whatever it is called, by its path there."""
    return {
        str(path.relative_to(folder)): calculate_checksum(path.read_bytes())
        for path in sorted(folder.rglob("*.sql"))
        if path.is_file()
    }


def find_migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """The versioned migrations of a folder, in the order Flyway applies them.

    Misnamed files are left to Flyway, which refuses them by name (validateMigrationNaming).
    """
    found: list[Migration] = []
    for name, checksum in calculate_checksums(folder).items():
        match = _NAME.fullmatch(Path(name).name)
        if match:
            found.append(
                Migration(
                    version=match["version"].replace("_", "."),
                    description=match["description"].replace("_", " "),
                    script=name,
                    checksum=checksum,
                )
            )
    return sorted(found, key=lambda m: [int(part) for part in m.version.split(".")])

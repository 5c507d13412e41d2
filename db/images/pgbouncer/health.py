"""The health check of ECS: it exits with 0 if PgBouncer answers.

The argument is the folder of PgBouncer's socket.

It asks PgBouncer's console, which answers also while PostgreSQL is down. If it asked PostgreSQL,
ECS would replace all tasks during a failover of the primary, and their clients would lose their
connections. A task has a console only after it has logged in to PostgreSQL
(db/pgbouncer_proof.py).
"""

import sys
from pathlib import Path

# It runs every 10 s on a quarter of a processor, so it imports no more than it needs.
from db.pgbouncer_client import SocketClient

_ANSWER_SECONDS = 8  # shorter than the timeout of the health check, so that its output says why


def main() -> None:
    try:
        with SocketClient(Path(sys.argv[1]), answer_seconds=_ANSWER_SECONDS) as console:
            console.query("SHOW VERSION")
    except OSError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()

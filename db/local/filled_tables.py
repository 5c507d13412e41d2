"""Measures how long statements of migrations take where each table has many rows."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from db.local.scratch_server import ScratchServer

ROWS = 100_000
_MARK = f"at-{secrets.token_hex(8)} "

# The value of a column in row g, by its type. Equal types get equal values in every table, so that
# a foreign key finds its row. A column of another type stays empty if it may.
_FILL = """
DO $fill$
DECLARE
  filled record;
BEGIN
  -- Foreign keys are not checked meanwhile.
  SET LOCAL session_replication_role = replica;
  FOR filled IN
    SELECT c.oid::regclass AS name,
           string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns,
           string_agg(CASE
             WHEN t.typname = 'uuid' THEN 'md5(g::text)::uuid'
             WHEN t.typname IN ('int8', 'int4', 'numeric', 'float8', 'float4') THEN 'g'
             WHEN t.typname = 'int2' THEN '(g % 30000)::int2'
             WHEN t.typname = 'bool' THEN 'g % 2 = 0'
             WHEN t.typname IN ('timestamp', 'timestamptz', 'date') THEN
               'now() - g * interval $$1 second$$'
             WHEN t.typname IN ('json', 'jsonb') OR t.typcategory = 'A' THEN '$${}$$'
             ELSE 'left(g::text, '
               || CASE WHEN a.atttypmod > 4 THEN a.atttypmod - 4 ELSE 32 END || ')'
           END, ', ' ORDER BY a.attnum) AS values
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                         AND a.attgenerated = '' AND a.attidentity <> 'a'
      JOIN pg_type t ON t.oid = a.atttypid
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname !~ '^(pg_|information_)'
       AND (a.attnotnull OR t.typcategory IN ('S', 'N', 'D', 'B') OR t.typname = 'uuid')
     GROUP BY c.oid
  LOOP
    BEGIN
      EXECUTE 'INSERT INTO ' || filled.name || ' (' || filled.columns || ') SELECT '
        || filled.values || ' FROM generate_series(1, ROWS) AS g';
    EXCEPTION WHEN OTHERS THEN
      NULL;  -- a check or a type that these values do not fit: the table stays empty
    END;
  END LOOP;
END
$fill$;
"""


def time_statements(
    server: ScratchServer, schema: Sequence[str], files: Sequence[dict[str, Any]]
) -> list[float | None]:
    """The seconds of each statement, in order. None if it ran outside a transaction, or failed."""
    name = f"{server.database}_filled"
    server.query(f"CREATE DATABASE {name}")
    filled = replace(server, database=name)
    for sql in (*schema, _FILL.replace("ROWS", str(ROWS)), "ANALYZE;"):
        filled.query(sql)
    return [seconds for file in files for seconds in _time_file(filled, file)]


def _time_file(server: ScratchServer, file: dict[str, Any]) -> list[float | None]:
    statements = list(file["statements"])
    if not file["is_in_transaction"]:
        for statement in statements:
            server.query(f"{statement};")
        return [None] * len(statements)
    tell = f"SELECT '{_MARK}' || extract(epoch FROM clock_timestamp());\n"
    script = f"BEGIN;\n{tell}" + "".join(f"{sql}\n;\n{tell}" for sql in statements) + "COMMIT;\n"
    output, _ = server.query(script)
    times = [
        float(line.removeprefix(_MARK)) for line in output.splitlines() if line.startswith(_MARK)
    ]
    seconds = [after - before for before, after in pairwise(times)]
    return [*seconds, *([None] * (len(statements) - len(seconds)))]

"""Prepares more statements than psycopg keeps, with the libpq of the system. Prints counts."""

import collections
import os

import psycopg

counted = collections.Counter[str]()
with psycopg.connect(autocommit=True, prepare_threshold=0) as connection:
    for turn in range(2):
        for number in range(150):  # psycopg keeps 100
            try:
                row = connection.execute(f"SELECT {number} + %s".encode(), [turn]).fetchone()
                counted["right" if row == (number + turn,) else "wrong"] += 1
            except psycopg.errors.InvalidSqlStatementName:
                counted["refused"] += 1
print(psycopg.pq.version() // 10000, counted["right"], counted["wrong"], counted["refused"])
assert os.environ["PSYCOPG_IMPL"] == psycopg.pq.__impl__

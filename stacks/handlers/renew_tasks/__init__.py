"""Replaces the tasks of PgBouncer after a change of a password that they use, or of the schema."""

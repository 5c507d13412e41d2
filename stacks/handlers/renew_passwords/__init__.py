"""Replaces the tasks of PgBouncer after a password that they use has changed."""

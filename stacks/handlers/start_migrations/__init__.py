"""Starts Flyway at a deploy: on_event of the CDK's Provider framework.

The framework adds the answer of this function to the event that watch_migrations gets.
"""

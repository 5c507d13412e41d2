"""Tells whether Flyway has ended at a deploy: is_complete of the CDK's Provider framework.

The framework calls this function every few seconds. It fails the deploy with a text that tells a
person what failed, where, and what to do.
"""

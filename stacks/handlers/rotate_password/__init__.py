"""Gives a user of PostgreSQL a new password, in the four steps of Secrets Manager's rotation.

https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html
"""

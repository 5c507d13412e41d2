"""Commands for operators. They import boto3 and the settings only, so they start at once."""

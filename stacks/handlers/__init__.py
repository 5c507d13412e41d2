"""The Lambda functions, one folder and one asset each.

A function imports boto3 and its own folder, because Lambda has nothing else.
"""

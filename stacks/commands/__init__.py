"""What an operator runs: boto3 and the settings only, so that it starts at once."""

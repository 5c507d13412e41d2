"""Lambda code; boto3 only."""

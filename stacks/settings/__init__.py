"""The settings of an environment on AWS. Nothing here imports the CDK."""

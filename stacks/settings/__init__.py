"""The settings of an environment on AWS: records, checks, connection budget, names. No CDK."""

"""The engine of RDS: PostgreSQL of one version."""

from aws_cdk import aws_rds as rds

from db.parameters import POSTGRES_MAJOR


def build_engine(version: str) -> rds.IInstanceEngine:
    return rds.DatabaseInstanceEngine.postgres(
        version=rds.PostgresEngineVersion.of(version, str(POSTGRES_MAJOR))
    )

"""The versions of a secret. Labels of Secrets Manager say what each version is for."""

import json
from dataclasses import dataclass
from typing import Any

CURRENT = "AWSCURRENT"  # the version that readers get
PENDING = "AWSPENDING"  # the version that a rotation makes
PREVIOUS = "AWSPREVIOUS"  # the version before the current one

Content = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Secret:
    """One secret. `secret_id` is its ARN or its name."""

    client: Any
    secret_id: str

    def describe(self) -> dict[str, Any]:
        """The regions of the secret and the labels of its versions, without any content."""
        return dict(self.client.describe_secret(SecretId=self.secret_id))

    def read(self, label: str, **version: str) -> Content | None:
        """The content of the version with a label. None if there is no such version, or no content.

        A rotation begins with a new version that has a label and no content.
        """
        try:
            answer = self.client.get_secret_value(
                SecretId=self.secret_id, VersionStage=label, **version
            )
        except self.client.exceptions.ResourceNotFoundException:
            return None
        return dict(json.loads(answer["SecretString"]))

    def write_pending(self, token: str, content: Content) -> None:
        """Write the content of the new version. Readers do not get it yet."""
        self.client.put_secret_value(
            SecretId=self.secret_id,
            ClientRequestToken=token,
            SecretString=json.dumps(content),
            VersionStages=[PENDING],
        )

    def make_current(self, token: str, *, instead_of: str) -> None:
        """Let readers get the new version. The version before it gets the label AWSPREVIOUS."""
        self.client.update_secret_version_stage(
            SecretId=self.secret_id,
            VersionStage=CURRENT,
            MoveToVersionId=token,
            RemoveFromVersionId=instead_of,
        )

"""Records which candidates were tried on which test patients, as tags of the registered model."""

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from medgan.errors import JobError
from medgan.paths import redacted
from medgan.tracking.store import opened

DIGITS = 12
"""So many digits of a digest distinguish candidates and test sets."""


def enter(name: str, *, test_set: str, weights: str, version: str, uri: str) -> int:
    """Records that a candidate was measured on a test set; returns the number of distinct candidates, with this one.

    Each pair has its own tag, so that processes that write at the same time never overwrite one another's tags.

    Args:
        test_set: digest of the test patients.
        weights: digest of the candidate's weights; the same weights count once, also under several versions.
        version: version of the candidate, for people who read the tag.

    Raises:
        InputError: the store cannot be opened.
        JobError: the store has no such model, or went away.
    """
    key = _prefix(test_set) + weights[:DIGITS]
    with opened(uri) as client:
        try:
            if key not in client.get_registered_model(name).tags:
                client.set_registered_model_tag(name, key, f"version {version}")
            return _count(client, name, test_set)
        except MlflowException as error:
            raise _lost(name, uri, error) from None


def _count(client: MlflowClient, name: str, test_set: str) -> int:
    return sum(key.startswith(_prefix(test_set)) for key in client.get_registered_model(name).tags)


def _prefix(test_set: str) -> str:
    return f"medgan.tried.{test_set[:DIGITS]}."


def _lost(name: str, uri: str, error: MlflowException) -> JobError:
    reason = str(error).splitlines()[0]
    return JobError("E-REGISTRY-01", uri=redacted(uri), name=name, reason=reason)

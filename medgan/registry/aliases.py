"""The aliases `champion` and `previous`, moved so that a crash at any point leaves a valid champion.

Each champion carries a tag that says which version it took over from; `previous` follows that tag. Only one alias
moves at a time, so what a crash leaves is `previous` on the champion itself, and the tag says where it belongs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from medgan.errors import InputError, JobError
from medgan.place import shown
from medgan.registry.models import holder, point

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
TOOK_OVER_FROM = "medgan.took_over_from"
NOBODY = "none"


@dataclass(frozen=True)
class Disagreement:
    """`previous` is not what the champion took over from.

    Attributes:
        is_on: the version it names; none if there is no such alias.
        belongs_on: the version it should name; none if there should be no such alias.
    """

    is_on: str | None
    belongs_on: str | None


def take_over(name: str, number: str, *, judged_against: str | None, uri: str) -> None:
    """Makes a version the champion, and the champion so far `previous`, in this order.

    Args:
        name: of the registered model.
        number: of the version.
        judged_against: the champion that it was compared with; none where there was none.
        uri: the tracking store.

    Raises:
        JobError: another version has become champion since then. Nothing is changed.
    """
    champion = holder(name, CHAMPION, uri=uri)
    if champion != judged_against:
        raise JobError(
            f"{name}: version {number} was judged against version {judged_against or NOBODY}, but version "
            f"{champion or NOBODY} has become champion meanwhile; nothing is changed, the same command judges again"
        )
    client = MlflowClient(tracking_uri=uri)
    client.set_model_version_tag(name, number, TOOK_OVER_FROM, champion or NOBODY)
    _point_or_remove(name, PREVIOUS, champion, uri=uri)
    point(name, CHAMPION, number, uri=uri)


def roll_back(name: str, *, uri: str) -> tuple[str, str]:
    """Makes the version that the champion took over from the champion again.

    Returns:
        The version that was champion, and the one that is.

    Raises:
        InputError: there is no such model, no champion, or none before it; or an interrupted promotion or rollback was
            mended instead, and a person should look first.
    """
    _refuse_absent(name, uri)
    champion = holder(name, CHAMPION, uri=uri)
    if champion is None:
        raise InputError(f"{name}: expected a model with a champion in {shown(uri)}; there is none")
    if champion == holder(name, PREVIOUS, uri=uri):
        mend(name, uri=uri)
        raise InputError(
            f"{name}: a promotion or rollback had been interrupted and is set right now: version {champion} is "
            "champion; the same command again rolls back from there"
        )
    before = predecessor(name, champion, uri=uri)
    if before is None:
        raise InputError(f"{name}: version {champion} took over from no version; there is nothing to roll back to")
    point(name, CHAMPION, before, uri=uri)
    _point_or_remove(name, PREVIOUS, predecessor(name, before, uri=uri), uri=uri)
    return champion, before


def predecessor(name: str, number: str, *, uri: str) -> str | None:
    """The version that this one took over from; none where it was the first, or where that one was deleted."""
    client = MlflowClient(tracking_uri=uri)
    before = client.get_model_version(name, number).tags.get(TOOK_OVER_FROM, NOBODY)
    if before == NOBODY:
        return None
    try:
        return str(client.get_model_version(name, before).version)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def disagreement(name: str, *, uri: str) -> Disagreement | None:
    """Where `previous` is not on the version that the champion took over from; none if all is well.

    Raises:
        InputError: there is no such store, or no such model.
    """
    _refuse_absent(name, uri)
    champion, previous = holder(name, CHAMPION, uri=uri), holder(name, PREVIOUS, uri=uri)
    before = predecessor(name, champion, uri=uri) if champion else None
    return Disagreement(previous, before) if previous != before else None


def mend(name: str, *, uri: str) -> None:
    """Lets `previous` name the version that the champion took over from."""
    if wrong := disagreement(name, uri=uri):
        _point_or_remove(name, PREVIOUS, wrong.belongs_on, uri=uri)


def _refuse_absent(name: str, uri: str) -> None:
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise InputError(f"{name}: there is no MLflow store {shown(uri)}; give --output or --tracking-uri")
    client = MlflowClient(tracking_uri=uri)
    known = sorted(entry.name for entry in client.search_registered_models())
    if name not in known:
        raise InputError(f"{name}: no such model in {shown(uri)}; registered: {', '.join(known) or 'none'}")


def _point_or_remove(name: str, alias: str, number: str | None, *, uri: str) -> None:
    if number is not None:
        point(name, alias, number, uri=uri)
    elif holder(name, alias, uri=uri) is not None:
        MlflowClient(tracking_uri=uri).delete_registered_model_alias(name, alias)

"""The aliases `champion` and `previous`, moved so that a crash at any point leaves a valid champion.

A tag of the registered model lists the reigns, one version after the other; the alias `champion` says where in that
list we are, and `previous` follows both. The champion moves in one write, so whatever a crash leaves is mended from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from medgan.errors import InputError, JobError
from medgan.locks import opening
from medgan.paths import redacted
from medgan.registry.versions import ABSENT, holder, point

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
REIGNS = "medgan.champions"
MOST_REIGNS = 100
NOBODY = "none"


@dataclass(frozen=True)
class AliasDisagreement:
    """`previous` is not the champion before this one.

    Attributes:
        is_on: the version it names; none if there is no such alias.
        belongs_on: the version it should name; none if there should be no such alias.
    """

    is_on: str | None
    belongs_on: str | None


def take_over(name: str, number: str, *, judged_against: str | None, uri: str) -> None:
    """Makes a version the champion, and the champion so far `previous`: the list first, the champion last.

    Processes on one SQLite store take turns; on a server nothing keeps two promotions in the same second apart.

    Args:
        name: of the registered model.
        number: of the version.
        judged_against: the champion that it was compared with; none where there was none.
        uri: the tracking store.

    Raises:
        JobError: another version has become champion since then. Nothing is changed.
    """
    with opening(uri):
        reigns = _reigns(name, uri)
        champion = reigns[-1] if reigns else None
        if champion != judged_against:
            raise JobError(
                "E-ALIAS-01",
                name=name,
                number=number,
                judged_against=judged_against or NOBODY,
                champion=champion or NOBODY,
            )
        _write(name, [*reigns, number], uri)
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
    with opening(uri):
        reigns = _reigns(name, uri)
        if not reigns:
            raise InputError("E-ALIAS-02", name=name, uri=redacted(uri))
        champion = reigns[-1]
        if champion == holder(name, PREVIOUS, uri=uri):
            _reconcile(name, reigns, uri)
            raise InputError("E-ALIAS-03", name=name, champion=champion)
        if len(reigns) == 1:
            raise InputError("E-ALIAS-04", name=name, champion=champion)
        point(name, CHAMPION, reigns[-2], uri=uri)
        _reconcile(name, reigns[:-1], uri)
        return champion, reigns[-2]


def disagreement(name: str, *, uri: str) -> AliasDisagreement | None:
    """Where `previous` is not on the champion before this one; none if all is well.

    Raises:
        InputError: there is no such store, or no such model.
    """
    _refuse_absent(name, uri)
    reigns, previous = _reigns(name, uri), holder(name, PREVIOUS, uri=uri)
    before = reigns[-2] if len(reigns) > 1 else None
    return AliasDisagreement(previous, before) if previous != before else None


def mend(name: str, *, uri: str) -> None:
    """Lets the list end with the champion, and `previous` name the one before."""
    with opening(uri):
        _reconcile(name, _reigns(name, uri), uri)


def _reconcile(name: str, reigns: list[str], uri: str) -> None:
    _write(name, reigns, uri)
    _point_or_remove(name, PREVIOUS, reigns[-2] if len(reigns) > 1 else None, uri=uri)


def _reigns(name: str, uri: str) -> list[str]:
    """The champions so far, the one that is last: what comes after it in the list was never carried out.

    A champion that is not in the list was named by hand. Versions that were deleted are left out.
    """
    champion = holder(name, CHAMPION, uri=uri)
    if champion is None:
        return []
    client = MlflowClient(tracking_uri=uri)
    listed = json.loads(client.get_registered_model(name).tags.get(REIGNS, "[]"))
    if champion in listed:
        listed = listed[: len(listed) - listed[::-1].index(champion)]
    else:
        listed.append(champion)
    there = {number for number in dict.fromkeys(listed) if _is_there(client, name, number)}
    kept = [number for number in listed if number in there]
    return [number for place, number in enumerate(kept) if place == 0 or number != kept[place - 1]]


def _write(name: str, reigns: list[str], uri: str) -> None:
    MlflowClient(tracking_uri=uri).set_registered_model_tag(name, REIGNS, json.dumps(reigns[-MOST_REIGNS:]))


def _is_there(client: MlflowClient, name: str, number: str) -> bool:
    try:
        client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return False
        raise
    return True


def _refuse_absent(name: str, uri: str) -> None:
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise InputError("E-ALIAS-05", name=name, uri=redacted(uri))
    try:
        MlflowClient(tracking_uri=uri).get_registered_model(name)
    except MlflowException as error:
        if error.error_code in ABSENT:
            raise InputError("E-ALIAS-06", name=name, uri=redacted(uri)) from None
        raise


def _point_or_remove(name: str, alias: str, number: str | None, *, uri: str) -> None:
    if number is not None:
        point(name, alias, number, uri=uri)
    elif holder(name, alias, uri=uri) is not None:
        MlflowClient(tracking_uri=uri).delete_registered_model_alias(name, alias)

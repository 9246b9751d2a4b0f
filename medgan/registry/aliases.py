"""Moves the aliases `champion` and `previous` so that a crash at any point leaves a valid champion.

A tag of the registered model lists the champions in their order; the alias `champion` marks the place in that list, and
`previous` follows from both. The champion moves in one write, from which the rest is repaired after a crash.
"""

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
LIST_TAG = "medgan.champions"
MOST_LISTED = 100
NOBODY = "none"


@dataclass(frozen=True)
class AliasDisagreement:
    """Says that `previous` does not name the champion before the present one.

    Attributes:
        is_on: version that `previous` names; None: there is no such alias.
        belongs_on: version that `previous` should name; None: there should be no such alias.
    """

    is_on: str | None
    belongs_on: str | None


def take_over(name: str, number: str, *, judged_against: str | None, uri: str) -> None:
    """Makes a version the champion, and the old champion `previous`; writes the list first, the champion last.

    Processes on one SQLite store take turns; a server does not separate two promotions in the same second.

    Args:
        judged_against: champion that the version was compared with; None: there was no champion.

    Raises:
        JobError: another version has become champion since then; nothing is changed.
    """
    with opening(uri):
        champions = _champions(name, uri)
        champion = champions[-1] if champions else None
        if champion != judged_against:
            before, now = judged_against or NOBODY, champion or NOBODY
            raise JobError("E-ALIAS-01", name=name, number=number, judged_against=before, champion=now)
        _write(name, [*champions, number], uri)
        _point_or_remove(name, PREVIOUS, champion, uri=uri)
        point(name, CHAMPION, number, uri=uri)


def roll_back(name: str, *, uri: str) -> tuple[str, str]:
    """Makes the champion before the present one the champion again; returns the old champion and the new one.

    Raises:
        InputError: there is no such model, no champion, or no earlier one; or an interrupted promotion or rollback was
            repaired instead, and a person should look first.
    """
    _refuse_absent(name, uri)
    with opening(uri):
        champions = _champions(name, uri)
        if not champions:
            raise InputError("E-ALIAS-02", name=name, uri=redacted(uri))
        champion = champions[-1]
        if champion == holder(name, PREVIOUS, uri=uri):
            _reconcile(name, champions, uri)
            raise InputError("E-ALIAS-03", name=name, champion=champion)
        if len(champions) == 1:
            raise InputError("E-ALIAS-04", name=name, champion=champion)
        point(name, CHAMPION, champions[-2], uri=uri)
        _reconcile(name, champions[:-1], uri)
        return champion, champions[-2]


def disagreement(name: str, *, uri: str) -> AliasDisagreement | None:
    """Returns how `previous` differs from the champion before the present one; None if it does not.

    Raises:
        InputError: the store or the model does not exist.
    """
    _refuse_absent(name, uri)
    champions, previous = _champions(name, uri), holder(name, PREVIOUS, uri=uri)
    before = champions[-2] if len(champions) > 1 else None
    return AliasDisagreement(previous, before) if previous != before else None


def mend(name: str, *, uri: str) -> None:
    """Repairs the list so that it ends with the champion, and `previous` so that it names the champion before."""
    with opening(uri):
        _reconcile(name, _champions(name, uri), uri)


def _reconcile(name: str, champions: list[str], uri: str) -> None:
    _write(name, champions, uri)
    _point_or_remove(name, PREVIOUS, champions[-2] if len(champions) > 1 else None, uri=uri)


def _champions(name: str, uri: str) -> list[str]:
    """Returns the champions so far, the present one last; later entries are from an interrupted change.

    A champion that is not in the list was set by hand. Versions that were deleted are left out.
    """
    champion = holder(name, CHAMPION, uri=uri)
    if champion is None:
        return []
    client = MlflowClient(tracking_uri=uri)
    listed = json.loads(client.get_registered_model(name).tags.get(LIST_TAG, "[]"))
    if champion in listed:
        listed = listed[: len(listed) - listed[::-1].index(champion)]
    else:
        listed.append(champion)
    there = {number for number in dict.fromkeys(listed) if _is_there(client, name, number)}
    kept = [number for number in listed if number in there]
    return [number for place, number in enumerate(kept) if place == 0 or number != kept[place - 1]]


def _write(name: str, champions: list[str], uri: str) -> None:
    MlflowClient(tracking_uri=uri).set_registered_model_tag(name, LIST_TAG, json.dumps(champions[-MOST_LISTED:]))


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

"""A candidate against the champion, top to bottom: measure both on the same held-out patients, judge, keep, promote."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from medgan.config import Config, validated
from medgan.data.dataset import PreparedDataset
from medgan.errors import InputError
from medgan.inference.saved_model import read_manifest
from medgan.metrics.validation_metrics import measured
from medgan.paths import Place, redacted
from medgan.registry import test_set_ledger as ledger
from medgan.registry.aliases import CHAMPION, roll_back, take_over
from medgan.registry.evaluation import (
    Evaluation,
    dataset_for_model,
    measure_model,
    refuse_seen,
    refuse_unfit,
    test_set_of,
)
from medgan.registry.gates import Evidence, Verdict, beats_floor, judge
from medgan.registry.promotion_record import PromotionRecord, folder_of, keep, kept, show
from medgan.registry.promotion_rules import Rules, read_rules
from medgan.registry.versions import fetched, holder, reached
from medgan.report.promotion_report import FILE_NAME
from medgan.training.held_out import floor_on_test
from medgan.training.runtime import SingleProcess


@dataclass(frozen=True)
class PromoteRequest:
    """What the command line asks for.

    Attributes:
        model: the candidate, `models:/<name>@<alias>` or `models:/<name>/<version>`.
        data: prepared data set, or images; whose test patients.
        rules: YAML file; none: the default rules.
    """

    model: str
    data: str
    rules: Path | None
    place: Place


@dataclass(frozen=True)
class _Pair:
    """Candidate and champion as fetched, and the patients to compare them on."""

    name: str
    version: str
    folder: Path
    champion: str | None
    champion_folder: Path | None
    dataset: PreparedDataset

    @property
    def key(self) -> tuple[str, str | None, str]:
        """What a verdict is about: the weights of both, and the test patients."""
        theirs = read_manifest(self.champion_folder).weights_sha256 if self.champion_folder else None
        return read_manifest(self.folder).weights_sha256, theirs, test_set_of(self.dataset)


def promote(request: PromoteRequest, console: Console) -> bool:
    """Promotes the candidate if the rules say so; the evidence stays with it either way.

    A verdict that passed is used again for the same weights, patients and rules, as after a rollback.

    Returns:
        Whether the candidate is champion now.

    Raises:
        InputError: no such model, damaged, of other images, or it has seen a test patient; rules that do not fit.
        JobError: the store is away, or another version became champion meanwhile.
    """
    with reached(request.place.tracking_uri):
        return _promote(request, read_rules(request.rules), console)


def _promote(request: PromoteRequest, rules: Rules, console: Console) -> bool:
    place, uri = request.place, request.place.tracking_uri
    with ExitStack() as stack:
        folder, name, version = stack.enter_context(fetched(request.model, uri=uri))
        champion = holder(name, CHAMPION, uri=uri)
        if champion == version:
            console.print(f"{name} version {version} is champion already.")
            return True
        dataset = dataset_for_model(request.data, read_manifest(folder), place=place, console=console)
        theirs = stack.enter_context(fetched(f"models:/{name}/{champion}", uri=uri))[0] if champion else None
        pair = _Pair(name, version, folder, champion, theirs, dataset)
        where = folder_of(pair.key, rules)
        judgement = kept(name, version, champion, where, uri=uri)
        if judgement:
            console.print(f"The evidence of {judgement.when} is used again: the same weights, patients and rules.")
        else:
            judgement = _judged(pair, rules, uri, console)
        keep(judgement, where, uri=uri)
    show(console, judgement)
    if judgement.verdict.passed:
        take_over(name, version, judged_against=champion, uri=uri)
    _show_end(console, judgement, where, place)
    return judgement.verdict.passed


def rollback(name: str, place: Place, console: Console) -> None:
    """Makes the version that the champion took over from the champion again.

    Raises:
        InputError: there is none.
        JobError: the store is away.
    """
    with reached(place.tracking_uri):
        before, now = roll_back(name, uri=place.tracking_uri)
    console.print(f"{name}: version {now} is champion again; version {before} was. Whoever follows the alias changes.")
    console.print(f"medgan promote --model models:/{name}/{before} brings it back, by the evidence it has.")


def _judged(pair: _Pair, rules: Rules, uri: str, console: Console) -> PromotionRecord:
    for one in filter(None, (pair.folder, pair.champion_folder)):  # before anything is counted as tried
        refuse_unfit(read_manifest(one), pair.dataset)
        refuse_seen(read_manifest(one), pair.dataset)
    _refuse_unmeasured(rules, pair.dataset)
    weights, _, test_set = pair.key
    tried = ledger.enter(pair.name, test_set=test_set, weights=weights, version=pair.version, uri=uri)
    ruler = validated(read_manifest(pair.champion_folder or pair.folder).config)
    candidate = _measured(pair.folder, pair, pair.version, ruler=ruler, console=console)
    if pair.champion is None or pair.champion_folder is None:
        verdict = _above_floor(judge(_evidence(candidate), None, rules, tried=tried), candidate, pair.dataset)
        return PromotionRecord(
            when=_now(), candidate=candidate, champion=None, rules=rules, tried=tried, verdict=verdict
        )
    champion = _measured(pair.champion_folder, pair, pair.champion, ruler=ruler, console=console)
    verdict = judge(_evidence(candidate), _evidence(champion), rules, tried=tried)
    return PromotionRecord(
        when=_now(), candidate=candidate, champion=champion, rules=rules, tried=tried, verdict=verdict
    )


def _above_floor(verdict: Verdict, candidate: Evaluation, dataset: PreparedDataset) -> Verdict:
    """What is asked of a first champion besides: to be better than without a network."""
    if not verdict.passed:
        return verdict
    floor = floor_on_test(Config(), dataset, SingleProcess())
    above = beats_floor(candidate.patients, floor, name=dataset.task.floor)
    return Verdict(above.passed, (*verdict.reasons, *above.reasons))


def _refuse_unmeasured(rules: Rules, dataset: PreparedDataset) -> None:
    known = measured(dataset.task.target, size=dataset.manifest.size, with_lpips=True)
    if unknown := sorted(rules.metrics - set(known)):
        raise InputError("E-PROMOTE-01", known=", ".join(known), unknown=unknown[0])


def _measured(folder: Path, pair: _Pair, version: str, *, ruler: Config, console: Console) -> Evaluation:
    count = len(pair.dataset.slices("test"))
    console.print(f"measuring {pair.name} version {version} on {count} slices of the test patients ...")
    return measure_model(folder, pair.dataset, name=pair.name, version=version, ruler=ruler)


def _evidence(measured: Evaluation) -> Evidence:
    return Evidence(measured.patients, measured.latency_ms, measured.memory_gb, measured.pretrained)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _show_end(console: Console, judgement: PromotionRecord, where: str, place: Place) -> None:
    candidate, champion = judgement.candidate, judgement.champion
    if judgement.verdict.passed:
        before = f"; version {champion.version} is previous" if champion else ""
        console.print(f"\nPromoted: {candidate.name} version {candidate.version} is champion{before}.")
    else:
        stays = f"version {champion.version} stays champion" if champion else "there is no champion"
        console.print(f"\nNot promoted: {stays}.")
    console.print(
        f"Evidence: {where}/{FILE_NAME}, an artifact of the run of version {candidate.version} in "
        f"{redacted(place.tracking_uri)}",
        soft_wrap=True,
    )
    console.print("For research only; not for diagnosis.")

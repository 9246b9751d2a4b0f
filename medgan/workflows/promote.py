"""Compares a candidate with the champion on the same held-out patients, and promotes it if the rules say so."""

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from medgan.config import Config, validated
from medgan.data.dataset import PreparedDataset
from medgan.errors import InputError
from medgan.inference.saved_model import read_manifest
from medgan.metrics.validation_metrics import measured
from medgan.paths import Place
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
from medgan.registry.promotion_record import PromotionRecord, folder_of, keep, kept
from medgan.registry.promotion_rules import Rules, read_rules
from medgan.registry.versions import fetched, holder, reached
from medgan.report.promotion_report import Comparison, write_comparison
from medgan.training.held_out import floor_on_test
from medgan.training.runtime import SingleProcess
from medgan.workflows.events import Note, Notify, advancing, ignore


@dataclass(frozen=True)
class _Pair:
    """Holds candidate and champion as fetched, and the patients to compare them on."""

    name: str
    version: str
    folder: Path
    champion: str | None
    champion_folder: Path | None
    dataset: PreparedDataset

    @property
    def key(self) -> tuple[str, str | None, str]:
        """Returns what a verdict is about: the weights of both, and the test patients."""
        theirs = read_manifest(self.champion_folder).weights_sha256 if self.champion_folder else None
        return read_manifest(self.folder).weights_sha256, theirs, test_set_of(self.dataset)


@dataclass(frozen=True)
class Promotion:
    """Says whether a candidate is champion now, and on what evidence.

    Attributes:
        record: the verdict with its evidence; None: the candidate was champion already.
        artifacts: folder of the evidence among the artifacts of the candidate's run.
    """

    name: str
    version: str
    record: PromotionRecord | None = None
    artifacts: str = ""

    @property
    def passed(self) -> bool:
        """Returns whether the candidate is champion now."""
        return self.record is None or self.record.verdict.passed


def promote(model: str, data: str, rules: Path | None, place: Place, notify: Notify = ignore) -> Promotion:
    """Promotes the candidate if the rules say so; the evidence stays with it either way.

    A verdict that passed is used again for the same weights, patients and rules, as after a rollback.

    Args:
        model: the candidate, `models:/<name>@<alias>` or `models:/<name>/<version>`.
        data: prepared data set, or images; its test patients are measured.
        rules: YAML file; None: the default rules.
        notify: takes the events, a `PromotionRecord` among them.

    Raises:
        InputError: no such model, damaged, of other images, or it has seen a test patient; rules that do not fit.
        JobError: the store is away, or another version became champion meanwhile.
    """
    with reached(place.tracking_uri):
        return _promote(model, data, read_rules(rules), place, notify)


def _promote(model: str, data: str, rules: Rules, place: Place, notify: Notify) -> Promotion:
    uri = place.tracking_uri
    with ExitStack() as stack:
        folder, name, version = stack.enter_context(fetched(model, uri=uri))
        champion = holder(name, CHAMPION, uri=uri)
        if champion == version:
            return Promotion(name, version)
        dataset = dataset_for_model(
            data, read_manifest(folder), place=place, progress=advancing(notify, "patients prepared")
        )
        theirs = stack.enter_context(fetched(f"models:/{name}/{champion}", uri=uri))[0] if champion else None
        pair = _Pair(name, version, folder, champion, theirs, dataset)
        where = folder_of(pair.key, rules)
        record = kept(name, version, champion, where, uri=uri)
        if record:
            notify(Note(f"The evidence of {record.when} is used again: the same weights, patients and rules."))
        else:
            record = _judged(pair, rules, uri, notify)
        with tempfile.TemporaryDirectory() as page:
            write_comparison(_comparison(record), Path(page))
            keep(record, where, page=Path(page), uri=uri)
    notify(record)
    if record.verdict.passed:
        take_over(name, version, judged_against=champion, uri=uri)
    return Promotion(name, version, record, where)


def rollback(name: str, place: Place) -> tuple[str, str]:
    """Makes the version that the champion took over from the champion again; returns the old champion and the new one.

    Raises:
        InputError: there is none.
        JobError: the store is away.
    """
    with reached(place.tracking_uri):
        return roll_back(name, uri=place.tracking_uri)


def _judged(pair: _Pair, rules: Rules, uri: str, notify: Notify) -> PromotionRecord:
    for one in filter(None, (pair.folder, pair.champion_folder)):  # before anything is counted as tried
        refuse_unfit(read_manifest(one), pair.dataset)
        refuse_seen(read_manifest(one), pair.dataset)
    _refuse_unmeasured(rules, pair.dataset)
    weights, _, test_set = pair.key
    tried = ledger.enter(pair.name, test_set=test_set, weights=weights, version=pair.version, uri=uri)
    ruler = validated(read_manifest(pair.champion_folder or pair.folder).config)
    candidate = _measured(pair.folder, pair, pair.version, ruler=ruler, notify=notify)
    if pair.champion is None or pair.champion_folder is None:
        verdict = _above_floor(judge(_evidence(candidate), None, rules, tried=tried), candidate, pair.dataset)
        return PromotionRecord(
            when=_now(), candidate=candidate, champion=None, rules=rules, tried=tried, verdict=verdict
        )
    champion = _measured(pair.champion_folder, pair, pair.champion, ruler=ruler, notify=notify)
    verdict = judge(_evidence(candidate), _evidence(champion), rules, tried=tried)
    return PromotionRecord(
        when=_now(), candidate=candidate, champion=champion, rules=rules, tried=tried, verdict=verdict
    )


def _above_floor(verdict: Verdict, candidate: Evaluation, dataset: PreparedDataset) -> Verdict:
    """Adds what a first champion must show besides: to be better than without a network."""
    if not verdict.passed:
        return verdict
    floor = floor_on_test(Config(), dataset, SingleProcess())
    above = beats_floor(candidate.patients, floor, name=dataset.task.floor)
    return Verdict(above.passed, (*verdict.reasons, *above.reasons))


def _refuse_unmeasured(rules: Rules, dataset: PreparedDataset) -> None:
    known = measured(dataset.task.target, size=dataset.manifest.size, with_lpips=True)
    if unknown := sorted(rules.metrics - set(known)):
        raise InputError("E-PROMOTE-01", known=", ".join(known), unknown=unknown[0])


def _measured(folder: Path, pair: _Pair, version: str, *, ruler: Config, notify: Notify) -> Evaluation:
    count = len(pair.dataset.slices("test"))
    notify(Note(f"measuring {pair.name} version {version} on {count} slices of the test patients ..."))
    return measure_model(folder, pair.dataset, name=pair.name, version=version, ruler=ruler)


def _evidence(measured: Evaluation) -> Evidence:
    return Evidence(measured.patients, measured.latency_ms, measured.memory_gb, measured.pretrained, measured.mask_rule)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _comparison(record: PromotionRecord) -> Comparison:
    candidate, champion, verdict = record.candidate, record.champion, record.verdict
    against = f"against version {champion.version}" if champion else "as first champion"
    facts = {
        "Verdict": "passed" if verdict.passed else "refused",
        "When": record.when,
        "Patients": f"{len(candidate.patients)}, {sum(candidate.slices.values())} slices; {candidate.task}",
        "Test set": candidate.test_set,
        "Candidates tried": f"{record.tried} on these patients, this one included",
        "A slice": f"{candidate.latency_ms:.4g} ms, {candidate.memory_gb:.3g} GB on {candidate.device}",
    }
    return Comparison(
        title=f"{candidate.name} version {candidate.version} {against}",
        facts=facts,
        reasons=verdict.reasons,
        primary=record.rules.primary,
        candidate=candidate.patients,
        champion=champion.patients if champion else None,
    )

"""A verdict with everything it rests on: kept with the candidate, read again, shown."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.table import Table

import medgan
from medgan.cli.summary import UNITS
from medgan.metrics.validation_metrics import Patients, overall_means, overall_spread
from medgan.registry.evaluation import Evaluation
from medgan.registry.evidence import attach, read_back
from medgan.registry.gates import Verdict
from medgan.registry.promotion_rules import Rules
from medgan.report.promotion_report import Comparison, write_comparison

RECORD = "promotion.json"


class PromotionRecord(BaseModel, frozen=True):
    """A verdict with everything it rests on; kept with the candidate.

    Attributes:
        when: ISO 8601, UTC.
        candidate: as measured.
        champion: as measured on the same patients; none where there was none.
        rules: what was asked.
        tried: distinct candidates tried on these patients until then.
        verdict: what came of it.
    """

    when: str
    candidate: Evaluation
    champion: Evaluation | None
    rules: Rules
    tried: int
    verdict: Verdict


def folder_of(key: Sequence[str | None], rules: Rules) -> str:
    """Where a verdict is kept among the artifacts of the candidate's run.

    Args:
        key: what it is about: digests of the candidate's weights, the champion's, and the test patients.
        rules: that were asked.
    """
    content = json.dumps([medgan.__version__, *key, rules.model_dump(mode="json")], sort_keys=True)
    return f"promotion/{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def kept(name: str, version: str, champion: str | None, where: str, *, uri: str) -> PromotionRecord | None:
    """A verdict that passed before, by its folder; none if there is none, or none that can be read."""
    content = read_back(name, version, f"{where}/{RECORD}", uri=uri)
    try:
        judgement = PromotionRecord.model_validate_json(content or "")
    except ValidationError:
        return None
    if judgement.champion and champion:  # the same weights, perhaps of another version
        judgement = judgement.model_copy(
            update={"champion": judgement.champion.model_copy(update={"version": champion})}
        )
    return judgement if judgement.verdict.passed else None


def keep(judgement: PromotionRecord, where: str, *, uri: str) -> None:
    """Keeps a verdict in that folder, with its page, and says so in the tags of the candidate's version."""
    candidate, champion = judgement.candidate, judgement.champion
    verdict = judgement.verdict
    tags = {
        "medgan.gate": "passed" if verdict.passed else "refused",
        "medgan.gate_against": f"version {champion.version}" if champion else "no champion",
        "medgan.gate_patients": len(candidate.patients),
        "medgan.gate_tried": judgement.tried,
        "medgan.gate_evidence": where,
        "medgan.gate_when": judgement.when,
    }
    if verdict.p is not None:
        tags |= {"medgan.gate_p": f"{verdict.p:.4g}", "medgan.gate_p_adjusted": f"{verdict.adjusted_p:.4g}"}
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / RECORD).write_text(judgement.model_dump_json(indent=1) + "\n", encoding="utf-8")
        write_comparison(_comparison(judgement), Path(scratch))
        attach(candidate.name, candidate.version, files=Path(scratch), folder=where, tags=tags, uri=uri)


def show(console: Console, judgement: PromotionRecord) -> None:
    """The test metrics of both, and what each rule made of them."""
    candidate, champion, verdict = judgement.candidate, judgement.champion, judgement.verdict
    console.print(f"\n{len(candidate.patients)} held-out test patients; mean and spread over them")
    names = [f"version {candidate.version}", *([f"champion {champion.version}"] if champion else [])]
    table = Table("test metric", *names, box=None, pad_edge=False)
    columns = [_column(one.patients) for one in (candidate, champion) if one]
    for name in columns[0]:
        table.add_row(name + UNITS.get(name, ""), *(column.get(name, "-") for column in columns))
    console.print(table)
    console.print()
    for reason in verdict.reasons:
        console.print(f"  {reason}", markup=False, soft_wrap=True)


def _column(patients: Patients) -> dict[str, str]:
    means, spread = overall_means(patients), overall_spread(patients)
    return {name: f"{value:.4g} ± {spread[name]:.2g}" for name, value in means.items()}


def _comparison(judgement: PromotionRecord) -> Comparison:
    candidate, champion, verdict = judgement.candidate, judgement.champion, judgement.verdict
    against = f"against version {champion.version}" if champion else "as first champion"
    facts = {
        "Verdict": "passed" if verdict.passed else "refused",
        "When": judgement.when,
        "Patients": f"{len(candidate.patients)}, {sum(candidate.slices.values())} slices; {candidate.task}",
        "Test set": candidate.test_set,
        "Candidates tried": f"{judgement.tried} on these patients, this one included",
        "A slice": f"{candidate.latency_ms:.4g} ms, {candidate.memory_gb:.3g} GB on {candidate.device}",
    }
    return Comparison(
        title=f"{candidate.name} version {candidate.version} {against}",
        facts=facts,
        reasons=verdict.reasons,
        primary=judgement.rules.primary,
        candidate=candidate.patients,
        champion=champion.patients if champion else None,
    )

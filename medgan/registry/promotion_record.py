"""Keeps the verdict about a candidate with its evidence, and reads it again."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError

import medgan
from medgan.registry.evaluation import Evaluation
from medgan.registry.evidence import attach, read_back
from medgan.registry.gates import Verdict
from medgan.registry.promotion_rules import Rules

RECORD = "promotion.json"


class PromotionRecord(BaseModel, frozen=True):
    """Holds a verdict with all its evidence; it is kept with the candidate.

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
    """Returns where a verdict is kept among the artifacts of the candidate's run.

    Args:
        key: what it is about: digests of the candidate's weights, the champion's, and the test patients.
    """
    content = json.dumps([medgan.__version__, *key, rules.model_dump(mode="json")], sort_keys=True)
    return f"promotion/{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def kept(name: str, version: str, champion: str | None, where: str, *, uri: str) -> PromotionRecord | None:
    """Returns a verdict that passed before, by its folder; None if there is none that can be read."""
    content = read_back(name, version, f"{where}/{RECORD}", uri=uri)
    try:
        record = PromotionRecord.model_validate_json(content or "")
    except ValidationError:
        return None
    if record.champion and champion:  # the same weights, perhaps of another version
        record = record.model_copy(update={"champion": record.champion.model_copy(update={"version": champion})})
    return record if record.verdict.passed else None


def keep(record: PromotionRecord, where: str, *, page: Path, uri: str) -> None:
    """Keeps a verdict among the candidate's artifacts, and says so in the tags of its version.

    Args:
        where: folder among the artifacts.
        page: folder with the page that shows the verdict; `promotion.json` is added to it.
    """
    candidate, champion = record.candidate, record.champion
    verdict = record.verdict
    tags = {
        "medgan.gate": "passed" if verdict.passed else "refused",
        "medgan.gate_against": f"version {champion.version}" if champion else "no champion",
        "medgan.gate_patients": len(candidate.patients),
        "medgan.gate_tried": record.tried,
        "medgan.gate_evidence": where,
        "medgan.gate_when": record.when,
    }
    if verdict.p is not None:
        tags |= {"medgan.gate_p": f"{verdict.p:.4g}", "medgan.gate_p_adjusted": f"{verdict.adjusted_p:.4g}"}
    (page / RECORD).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    attach(candidate.name, candidate.version, files=page, folder=where, tags=tags, uri=uri)

"""Reads the rules that a candidate must meet from a YAML file; every refusal names the line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

from medgan.errors import InputError
from medgan.metrics.validation_metrics import direction

Place = tuple[str, ...]


def _measurable(name: str) -> str:
    direction(name)
    return name


Metric = Annotated[str, AfterValidator(_measurable)]
"""It must be a metric whose better direction is known."""


class Rules(BaseModel, frozen=True, strict=True, extra="forbid", allow_inf_nan=False):
    """Holds what `medgan.registry.gates.judge` requires; a metric's margin or bound is in the metric's unit."""

    primary: Metric = Field("ssim", description="the metric in which the candidate must be better than the champion")
    margin: NonNegativeFloat = Field(0.0, description="by more than this, in the mean over the test patients")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="largest one-sided p that counts as shown")
    non_inferior: dict[Metric, NonNegativeFloat] = Field(
        {"psnr": 0.5}, description="metric -> it must be shown, at alpha, that the mean is worse by less than this"
    )
    worst_patient: dict[Metric, NonNegativeFloat] = Field(
        {"ssim": 0.05}, description="metric -> the most that any one patient may lose against the champion"
    )
    min_patients: PositiveInt = Field(6, description="fewest test patients that a verdict may rest on")
    floors: dict[Metric, float] = Field(
        {}, description="metric -> what the mean must reach: at least where more is better, at most where less is"
    )
    max_latency_ms: PositiveFloat | None = Field(None, description="longest time for a slice; null: no limit")
    max_memory_gb: PositiveFloat | None = Field(None, description="most memory while translating; null: no limit")
    extractor: Literal["any", "pretrained"] = Field("any", description="whose features the candidate may be trained on")
    ledger: Literal["report", "block"] = Field(
        "report", description="p adjusted for the candidates tried on these patients: reported, or compared with alpha"
    )

    @property
    def metrics(self) -> set[str]:
        """Returns every metric that a rule is about."""
        return {self.primary, *self.non_inferior, *self.worst_patient, *self.floors}


def read_rules(path: Path | None) -> Rules:
    """Reads the rules in a YAML file; returns the default rules where `path` is None.

    Raises:
        InputError: no such file, not YAML, or a rule that is unknown, given twice or of the wrong kind; with its line.
    """
    if path is None:
        return Rules()
    content, lines = _parsed(path)
    if not isinstance(content, dict):
        raise InputError("E-RULES-01", path=path, content=content)
    try:
        return Rules.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = tuple(str(part) for part in first["loc"] if part != "[key]")
        rule, line = ".".join(place), lines.get(place) or lines.get(place[:1])
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"expected one of {', '.join(Rules.model_fields)}; got {rule!r}"
        elif first["type"] == "value_error":  # its message holds the value
            message = f"{rule}: {reason}"
        else:
            message = f"{rule}: {reason}; got {first['input']!r}"
        raise InputError("E-RULES-02", path=path, place=f", line {line}" if line else "", message=message) from None


def _parsed(path: Path) -> tuple[Any, dict[Place, int]]:
    """Returns what the file holds, and the line of each rule and of each metric in a rule, counted from 1."""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: not text, or a date such as 2020-13-45
        raise InputError("E-RULES-03", path=path, error=" ".join(str(error).split())) from None
    lines: dict[Place, int] = {}
    for place, line in _places(root):
        if place in lines:
            raise InputError("E-RULES-04", path=path, line=line, place=place[-1], lines=lines[place])
        lines[place] = line
    return content, lines


def _places(root: yaml.Node | None) -> Iterator[tuple[Place, int]]:
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        yield (str(key.value),), key.start_mark.line + 1
        for inner, _ in value.value if isinstance(value, yaml.MappingNode) else ():
            yield (str(key.value), str(inner.value)), inner.start_mark.line + 1

"""Defines how one setting varies in a search space, and under which condition."""

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from optuna.trial import Trial
from pydantic import BaseModel, Field, model_validator

from medgan.config import parse_assignment
from medgan.errors import InputError

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}

NAMES = {"integer": "int", "linear": "float", "log": "log", "choice": "choice"}
"""Gives the name that each kind of range has in a search space."""


@dataclass(frozen=True)
class Condition:
    """Describes a condition `SETTING OPERATOR VALUE`, such as `loss.lambda_style > 0`."""

    setting: str
    holds: Callable[[Any, Any], bool]
    value: Any

    @classmethod
    def read(cls, text: str) -> Self:
        """Parses the text of a condition; raises InputError if it is invalid."""
        found = re.fullmatch(r"\s*(\S+)\s*(==|!=|>=|<=|>|<)\s*(.+?)\s*", text)
        if not found:
            raise InputError("E-SPACE-01", text=text)
        setting, sign, value = found.groups()
        return cls(setting, OPERATORS[sign], parse_assignment(f"{setting}={value}")[1])

    def holds_in(self, values: Mapping[str, Any]) -> bool:
        """Returns whether the condition holds for these values, by dotted path."""
        return self.holds(values[self.setting], self.value)


class Move(BaseModel, frozen=True, extra="forbid"):
    """Describes how one setting varies: one of four ranges, and `when`; if that is false, the base's value stays."""

    integer: tuple[int, int] | None = Field(None, alias="int")
    linear: tuple[float, float] | None = Field(None, alias="float")
    log: tuple[float, float] | None = None
    choice: tuple[Any, ...] | None = Field(None, min_length=1)
    when: str | None = Field(None, description="condition on a setting that moves above this one")

    @model_validator(mode="after")
    def is_one_range(self) -> Self:
        """Raises InputError unless there is exactly one range, its ends are in order, and the condition can be read."""
        if self.when is not None:
            Condition.read(self.when)
        ranges = {name: getattr(self, field) for field, name in NAMES.items() if getattr(self, field) is not None}
        if len(ranges) != 1:
            raise InputError("E-SPACE-02", kinds=", ".join(ranges) or "none")
        ((kind, value),) = ranges.items()
        if kind != "choice" and value[0] >= value[1]:
            raise InputError("E-SPACE-03", kind=kind, value=list(value))
        if kind == "log" and value[0] <= 0:
            raise InputError("E-SPACE-04", value=value[0])
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """Returns the values that are checked when the space is read: both ends, or every choice."""
        return self.integer or self.linear or self.log or self.choice or ()

    @property
    def some(self) -> tuple[Any, ...]:
        """Returns values to check a condition with: every integer or choice, or both ends and the middle of a range."""
        if self.integer:
            return tuple(range(self.integer[0], self.integer[1] + 1))
        return self.choice or (*self.ends, sum(self.ends) / 2)

    @property
    def largest(self) -> Any:
        """Returns the high end, the largest number, the list with the deepest block, or the last of other choices."""
        if all(isinstance(end, int | float) for end in self.ends):
            return max(self.ends)
        return max(self.ends, key=max) if all(isinstance(end, list) for end in self.ends) else self.ends[-1]

    def has(self, value: Any) -> bool:
        """Returns whether the range contains a value of the configuration."""
        if self.choice:
            return encoded(value) in map(encoded, self.choice)
        return isinstance(value, int | float) and self.ends[0] <= value <= self.ends[1]

    def suggest(self, trial: Trial, setting: str) -> Any:
        """Samples the value for a trial; lists are stored in the database as JSON."""
        if self.integer:
            return trial.suggest_int(setting, *self.integer)
        if self.linear:
            return trial.suggest_float(setting, *self.linear)
        if self.log:
            return trial.suggest_float(setting, *self.log, log=True)
        return decoded(trial.suggest_categorical(setting, [encoded(one) for one in self.choice or ()]))


def encoded(choice: Any) -> Any:
    """Converts a choice from its form in the configuration to its form in the study database."""
    return json.dumps(choice) if isinstance(choice, list) else choice


def decoded(choice: Any) -> Any:
    """Converts a choice from its form in the study database to its form in the configuration."""
    return json.loads(choice) if isinstance(choice, str) and choice.startswith("[") else choice

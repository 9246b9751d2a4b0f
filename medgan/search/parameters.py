"""How one setting moves in a search space, and when."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Condition:
    """`SETTING OPERATOR VALUE`, such as `loss.lambda_style > 0`."""

    setting: str
    holds: Callable[[Any, Any], bool]
    value: Any

    @classmethod
    def read(cls, text: str) -> Condition:
        """The condition a text states; raises ValueError where it states none."""
        found = re.fullmatch(r"\s*(\S+)\s*(==|!=|>=|<=|>|<)\s*(.+?)\s*", text)
        if not found:
            raise InputError("E-SPACE-01", text=text)
        setting, sign, value = found.groups()
        return cls(setting, OPERATORS[sign], parse_assignment(f"{setting}={value}")[1])

    def holds_in(self, values: Mapping[str, Any]) -> bool:
        """Whether it holds where every setting has the given value, by dotted path."""
        return self.holds(values[self.setting], self.value)


class Move(BaseModel, frozen=True, extra="forbid"):
    """How one setting moves: exactly one of the four ranges, and when; elsewhere it keeps the base's value."""

    integer: tuple[int, int] | None = Field(None, alias="int")
    linear: tuple[float, float] | None = Field(None, alias="float")
    log: tuple[float, float] | None = None
    choice: tuple[Any, ...] | None = Field(None, min_length=1)
    when: str | None = Field(None, description="condition on a setting that moves above this one")

    @model_validator(mode="after")
    def is_one_range(self) -> Move:
        """Exactly one kind, its ends in order; a condition that can be read."""
        if self.when is not None:
            Condition.read(self.when)
        kinds = [(kind, value) for kind, value in self if value is not None and kind != "when"]
        if len(kinds) != 1:
            raise InputError("E-SPACE-02")
        kind, value = kinds[0]
        if kind != "choice" and value[0] >= value[1]:
            raise InputError("E-SPACE-03", kind=kind, value=list(value))
        if kind == "log" and value[0] <= 0:
            raise InputError("E-SPACE-04", value=value[0])
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values to try when the space is read: both ends, or every choice."""
        return self.integer or self.linear or self.log or self.choice or ()

    @property
    def some(self) -> tuple[Any, ...]:
        """Values to try a condition on: every integer or choice, both ends and the middle of a range."""
        if self.integer:
            return tuple(range(self.integer[0], self.integer[1] + 1))
        return self.choice or (*self.ends, sum(self.ends) / 2)

    @property
    def largest(self) -> Any:
        """The high end, the largest number, the list with the deepest block, or the last of other choices."""
        if all(isinstance(end, int | float) for end in self.ends):
            return max(self.ends)
        return max(self.ends, key=max) if all(isinstance(end, list) for end in self.ends) else self.ends[-1]

    def has(self, value: Any) -> bool:
        """Whether it can take a value of the configuration."""
        if self.choice:
            return encoded(value) in map(encoded, self.choice)
        return isinstance(value, int | float) and self.ends[0] <= value <= self.ends[1]

    def suggest(self, trial: Trial, setting: str) -> Any:
        """The trial's value; a choice of lists goes through the database as JSON."""
        if self.integer:
            return trial.suggest_int(setting, *self.integer)
        if self.linear:
            return trial.suggest_float(setting, *self.linear)
        if self.log:
            return trial.suggest_float(setting, *self.log, log=True)
        return decoded(trial.suggest_categorical(setting, [encoded(one) for one in self.choice or ()]))


def encoded(choice: Any) -> Any:
    """A choice as the configuration has it -> as the study database does."""
    return json.dumps(choice) if isinstance(choice, list) else choice


def decoded(choice: Any) -> Any:
    """A choice as the study database holds it -> as the configuration does."""
    return json.loads(choice) if isinstance(choice, str) and choice.startswith("[") else choice

"""Defines the errors that medgan raises on purpose; every other exception is a defect."""

from __future__ import annotations

from typing import Any, Self


class CodedError(Exception):
    """Carries a stable code and the values of its message, so that programs need not read prose.

    Attributes:
        template: the message with a `{name}` for every value.
        code: `E-<AREA>-<number>`, the same in every version of medgan; "" where none was given.
        fields: name -> value.
    """

    def __init__(self, template: str, /, *, code: str = "", **fields: Any) -> None:
        super().__init__(template.format(**fields) if fields else template)
        self.template, self.code, self.fields = template, code, fields

    def within(self, template: str, /, **fields: Any) -> Self:
        """Returns the same error with a message that says more; code and fields stay."""
        return type(self)(template, code=self.code, **{**self.fields, **fields})

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.template, self.code, self.fields)


def _rebuilt(kind: type[CodedError], template: str, code: str, fields: dict[str, Any]) -> CodedError:
    return kind(template, code=code, **fields)


class InputError(CodedError, ValueError):
    """Says that what the user gave cannot be used: what was expected, what was found, and where. Exit code 2."""


class JobError(CodedError, RuntimeError):
    """Says that the work was accepted and then failed. Exit code 1."""


class Diverged(CodedError, ArithmeticError):
    """Says that a loss or a validation metric is no longer finite: the trial is over, the worker group is not."""

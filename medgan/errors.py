"""Defines the errors that medgan raises on purpose; every other exception is a defect."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Self


@cache
def messages() -> dict[str, str]:
    """Returns the message of every code, with a `{name}` for each value; `messages.toml` holds them."""
    return tomllib.loads(Path(__file__).with_name("messages.toml").read_text(encoding="utf-8"))


class CodedError(Exception):
    """Carries a stable code and the values of its message, so that programs need not read prose.

    Attributes:
        code: `E-<AREA>-<number>`, a key of `messages.toml`, the same in every version of medgan.
        fields: name -> value.
    """

    def __init__(self, code: str, /, **fields: Any) -> None:
        template = messages().get(code)
        self.code, self.fields = code if template else "", fields
        super().__init__(template.format(**fields) if template else code)  # older registered models pass bare text

    def within(self, code: str, /, **fields: Any) -> Self:
        """Returns this error with the message of another code, which quotes it as `{reason}`; its own code stays."""
        error = type(self)(code, **{**self.fields, "reason": str(self), **fields})
        error.code = self.code
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), str(self), self.code, self.fields)


def _rebuilt(kind: type[CodedError], text: str, code: str, fields: dict[str, Any]) -> CodedError:
    error = kind(text)
    error.code, error.fields = code, fields
    return error


class InputError(CodedError, ValueError):
    """Says that what the user gave cannot be used: what was expected, what was found, and where. Exit code 2."""


class JobError(CodedError, RuntimeError):
    """Says that the work was accepted and then failed. Exit code 1."""


class Diverged(CodedError, ArithmeticError):
    """Says that a loss or a validation metric is no longer finite: the trial is over, the worker group is not."""

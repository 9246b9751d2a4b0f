"""Says which error a test expects: `pytest.raises(InputError, check=refusal("E-PAIR-01", found="CT"))`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def refusal(code: str, **fields: Any) -> Callable[[BaseException], bool]:
    """Returns a check that an error has this code and, among its fields, these (compared as text)."""

    def check(error: BaseException) -> bool:
        found = getattr(error, "code", ""), {name: str(getattr(error, "fields", {}).get(name, "missing")) for name in fields}
        assert found == (code, {name: str(value) for name, value in fields.items()}), f"{error} has {error.__dict__}"
        return True

    return check

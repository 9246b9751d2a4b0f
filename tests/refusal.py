"""Says which error a test expects: `pytest.raises(InputError, check=refusal("E-PAIR-01", found="CT"))`."""

from collections.abc import Callable
from typing import Any


def refusal(code: str, **fields: Any) -> Callable[[BaseException], bool]:
    """A check that an error has this code and, among its fields, these (compared as text)."""
    expected = {name: str(value) for name, value in fields.items()}

    def check(error: BaseException) -> bool:
        given = getattr(error, "fields", {})
        found = {name: str(given.get(name, "missing")) for name in fields}
        assert (getattr(error, "code", ""), found) == (code, expected), f"{error!r} has the fields {given}"
        return True

    return check

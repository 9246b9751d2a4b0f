"""Tells from an error whether the store is away, and repeats a call until the store is back."""

import math
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from mlflow.exceptions import MlflowException

from medgan.errors import JobError
from medgan.logs import LOG
from medgan.paths import redacted
from medgan.units import duration

PAUSE_S = 2.0
"""A call waits so long between two tries."""


def is_away(error: Exception) -> bool:
    """Returns whether the same call may succeed later: nobody answered, or the database was busy or away.

    A refusal by the store does not count. Neither does its error 500, which often has its cause in the call.
    """
    if isinstance(error, MlflowException):
        unanswered = re.match(r"API request to \S+ failed with (timeout )?exception", error.message)
        failing = "too many 500 error responses" in error.message
        return (unanswered is not None and not failing) or error.error_code == "TEMPORARILY_UNAVAILABLE"
    return isinstance(error, ConnectionError | TimeoutError)


def retry_while_away(
    call: Callable[..., Any],
    *arguments: Any,
    say: Callable[[str], None],
    limit_s: float = math.inf,
    given_up: threading.Event | None = None,
) -> Any:
    """Makes a call, and repeats it while the store is away; the call must be one that can be repeated.

    Args:
        say: reports to a person, once, that the store is away, and once that it is back.
        limit_s: longest outage to wait for.
        given_up: event that ends the wait from outside.

    Raises:
        JobError: the store was away for longer than `limit_s`.
        Exception: the call's own error, where it does not mean that the store is away, or where `given_up` is set.
    """
    given_up, since = given_up or threading.Event(), 0.0
    while True:
        try:
            answer = call(*arguments)
        except Exception as error:
            if not is_away(error) or given_up.is_set():
                raise
            LOG.warning("MLflow is away: %s", reason_of(error))
            if not since:
                since = time.monotonic()
                say("MLflow does not answer; results wait here until it answers")
            elif time.monotonic() - since > limit_s:
                raise JobError("E-MLFLOW-03", duration=duration(limit_s), reason_of=reason_of(error)) from error
            given_up.wait(PAUSE_S)
        else:
            if since:
                say(f"MLflow answers again, after {duration(time.monotonic() - since)}")
            return answer


def reason_of(error: Exception) -> str:
    """Returns the error in one line, without a password."""
    return redacted((str(error).splitlines() or [type(error).__name__])[0][:300])

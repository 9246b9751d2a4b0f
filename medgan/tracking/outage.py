"""A store that is away for a while: which errors say so, and a call that is repeated until it is back."""

from __future__ import annotations

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
"""Between two tries."""


def is_away(error: Exception) -> bool:
    """Whether a call may succeed later as it is: nobody answered, or the database was busy or away.

    What the store refuses is not among it, and neither is its error 500, which is about the call as often as not.
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
    """Makes a call that an outage of the store only delays; it has to be one that can be repeated.

    Args:
        call: what to call.
        arguments: with what.
        say: tells a person, once, that the store is away, and once that it is back.
        limit_s: longest outage waited for.
        given_up: ends the wait from outside.

    Raises:
        JobError: the store was away for longer than `limit_s`.
        Exception: of the call, where it is not that the store is away, or where the wait was given up.
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
                say("MLflow does not answer; what it is to be told waits until it does")
            elif time.monotonic() - since > limit_s:
                raise JobError("E-MLFLOW-03", duration=duration(limit_s), reason_of=reason_of(error)) from error
            given_up.wait(PAUSE_S)
        else:
            if since:
                say(f"MLflow answers again, after {duration(time.monotonic() - since)}")
            return answer


def reason_of(error: Exception) -> str:
    """The error in a line, without a password."""
    return redacted((str(error).splitlines() or [type(error).__name__])[0][:300])

"""Runs in a child process: answers calls, within limits, until its caller is gone."""

import gc
import os
import resource
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import medgan
from medgan.errors import CodedError

Result = TypeVar("Result")
FOLLOW_EVERY_S = 1.0
MARGIN_S = 10.0
OWN_CODE = Path(medgan.__file__).parent


@dataclass
class Answer:
    """Holds what a child says of a call.

    Attributes:
        notes: text, file and line of each warning of medgan's own; others may quote what they found in a header.
        full: whether the child has grown and should be replaced.
    """

    result: Any = None
    error: Exception | None = None
    notes: list[tuple[str, str, int]] = field(default_factory=list)
    full: bool = False


def without_garbage_collection(function: Callable[..., Result], *args: Any) -> Result:
    """Calls the function with garbage collection off: the objects of a series' headers live as long as the call."""
    gc.disable()
    try:
        return function(*args)
    finally:
        gc.enable()


def answer_calls(pipe: Connection, first: int, memory_bytes: int, kept_bytes: int) -> None:
    """Runs in the child: answers calls until its caller is gone."""
    _follow_first_process(first)
    _keep_quiet()
    _limit_memory(memory_bytes)
    at_rest = _status_bytes("VmRSS")
    while True:
        try:
            function, args, limit_s = pipe.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, limit_s + MARGIN_S)  # ends a child whose caller is gone, in any code
        answer = _answered(function, args)
        signal.setitimer(signal.ITIMER_REAL, 0)
        answer.full = kept_bytes > 0 and _status_bytes("VmRSS") - at_rest > kept_bytes
        try:
            pipe.send(answer)
        except Exception as error:  # nothing was sent: an answer is pickled as a whole first
            pipe.send(Answer(error=RuntimeError(f"the answer could not be pickled ({type(error).__name__})")))
        del function, args, answer


def _answered(function: Callable[..., Any], args: tuple[Any, ...]) -> Answer:
    answer = Answer()
    with warnings.catch_warnings(record=True) as noted:
        try:
            answer.result = without_garbage_collection(function, *args)
        except Exception as error:
            answer.error = error
            if not isinstance(error, CodedError):
                error.add_note("".join(traceback.format_tb(error.__traceback__)))
    own = [one for one in noted if Path(one.filename).is_relative_to(OWN_CODE)]
    answer.notes = [(str(one.message), one.filename, one.lineno) for one in own]
    return answer


def _follow_first_process(first: int) -> None:
    """Makes a child ignore Ctrl-C, which the first process answers, and end when the first process has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while True:
            time.sleep(FOLLOW_EVERY_S)
            try:
                os.kill(first, 0)  # signal 0 only checks that the process exists
            except ProcessLookupError:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _keep_quiet() -> None:
    """Drops what decoders print, which may quote a header, and forbids a core file, which would hold a patient."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))  # 0 would not stop a program that takes core files from a pipe


def _limit_memory(memory_bytes: int) -> None:
    if memory_bytes:
        most = _status_bytes("VmData") + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _status_bytes(name: str) -> int:
    """Returns a size of this process; 0 on a system that does not say."""
    status = Path("/proc/self/status")
    text = status.read_text() if status.exists() else ""
    return int(text.split(f"{name}:")[1].split()[0]) << 10 if f"{name}:" in text else 0

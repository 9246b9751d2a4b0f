"""Holds a child process that can be killed: a crash, or a limit of memory or time, ends one call only."""

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from multiprocessing import get_context
from multiprocessing.connection import wait as wait_for_pipes
from typing import Any, TypeVar

from medgan.errors import CodedError, InputError, JobError
from medgan.processes.answering import Answer, answer_calls

Result = TypeVar("Result")
LOOK_EVERY_S = 0.2
ENDED_S = 5.0  # until the exit code of an ended process is known
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}

_PROCESSES = threading.Lock()
"""An exit code can be read once: `start` reads those of all processes, so that two threads must not meet."""


class Stopped(Exception):
    """Says that nobody waits for a call any more."""


class Child:
    """Holds one child process, which runs one call after the other."""

    def __init__(self, memory_bytes: int = 0, kept_bytes: int = 0) -> None:
        context = get_context("forkserver")
        self._pipe, far = context.Pipe()
        args = (far, os.getpid(), memory_bytes, kept_bytes)
        self._process = context.Process(target=answer_calls, args=args, daemon=True)
        with _PROCESSES:
            self._process.start()
        far.close()
        self._speaker = ThreadPoolExecutor(1, "child")
        self._memory_bytes = memory_bytes
        self.pid = self._process.pid
        self.usable = True

    def call(
        self, function: Callable[..., Result], *args: Any, limit_s: float, go_on: Callable[[], None] = lambda: None
    ) -> Result:
        """Returns the function's result, and raises what it raises.

        Args:
            function, args: what to call; function, arguments and result are pickled.
            go_on: called often; what it raises ends the call and the child.

        Raises:
            InputError: the call crashed the child, or reached a limit.
            JobError: something else killed the child.
        """
        end = time.monotonic() + limit_s
        try:
            asked = self._speaker.submit(self._ask, function, args, limit_s)
            while not wait((asked,), LOOK_EVERY_S).done:
                if time.monotonic() > end:
                    raise InputError("E-CHILD-03", limit_s=limit_s)
                go_on()
            answer = asked.result()
        except (EOFError, OSError):
            raise self._lost() from None
        except BaseException:
            self.close()
            raise
        if answer.full:
            self.close()
        for text, file, line in answer.notes:
            warnings.warn_explicit(text, UserWarning, file, line)
        if isinstance(answer.error, MemoryError) and self._memory_bytes:
            raise InputError("E-CHILD-02", limit=self._memory_bytes / (1 << 30))
        if answer.error is not None:
            raise answer.error
        return answer.result

    def _ask(self, *call: Any) -> Answer:
        """Waits for a child that may do nothing any more; `close` ends the wait."""
        self._pipe.send(call)
        answer: Answer = self._pipe.recv()
        return answer

    def close(self) -> None:
        """Kills the child, whatever it does."""
        self.usable = False
        with _PROCESSES:
            self._process.kill()
        self._exit_code()
        self._speaker.shutdown(wait=False)
        self._pipe.close()

    def _lost(self) -> CodedError:
        code = self._exit_code()
        self.close()
        if code is not None and -code in CRASHES:
            return InputError("E-CHILD-01", signal=signal.Signals(-code).name)
        return JobError("E-CHILD-04", exit_code=code)

    def _exit_code(self) -> int | None:
        """Waits until the child has ended; None where the system cannot end it."""
        wait_for_pipes([self._process.sentinel], ENDED_S)
        with _PROCESSES:
            self._process.join(0)
            return self._process.exitcode

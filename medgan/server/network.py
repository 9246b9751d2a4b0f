"""Runs a network in child processes of its own, one for each device, and replaces one that is stuck or dead."""

import queue
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from medgan.data.volume import Volume
from medgan.errors import CodedError, JobError
from medgan.inference.saved_model import load_translator
from medgan.inference.translator import Placed, Translator, in_batches, translate_slices
from medgan.logs import LOG
from medgan.processes.child import Child
from medgan.server.upload import Refusal

BATCH = 16  # slices
LOAD_S = 300.0
LEAST_S = 5.0
SLOWER = 20  # times the first batch's time: then the network is stuck
LOOK_S = 0.2
WATCH_S = 4.0
AGAIN_S = 10.0
_LOADED: list[Translator] = []
"""Holds the translator of a child process."""


class Network(Protocol):
    """Translates what is on its grid; there may be several processes behind it, or none."""

    def translate(self, placed: Placed, go_on: Callable[[], None]) -> Volume:
        """Returns the translated volume; calls `go_on` between batches, which may raise an exception."""

    def problem(self) -> str:
        """Returns why nothing can be translated now; empty if it can."""

    def close(self) -> None:
        """Ends what nobody uses any more."""


@dataclass
class _Runner:
    child: Child
    device: str
    limit_s: float


class ChildNetwork:
    """Holds a network in a child process for each device; a volume goes to a free one."""

    def __init__(self, folder: Path, devices: Sequence[str], *, threads: int, unit: str) -> None:
        """Loads the network for each device, and makes a batch of images with it.

        Args:
            folder: a folder that `medgan.inference.saved_model.save_model` wrote; `close` removes it.
            threads: of one child process.
            unit: of the images that the network makes.

        Raises:
            InputError: the model cannot be loaded.
            JobError: a device makes no image.
        """
        self._folder, self._threads, self._unit = folder, threads, unit
        self._free: queue.Queue[_Runner] = queue.Queue()
        self._closed = threading.Event()
        self._lost: set[str] = set()  # devices
        self._devices = len(devices)
        for device in devices:
            self._free.put(self._started(device))
        threading.Thread(target=self._watch, daemon=True, name="network").start()

    def translate(self, placed: Placed, go_on: Callable[[], None]) -> Volume:
        """Returns the translated volume.

        Raises:
            Refusal: the network was stuck or died; it is being replaced (503).
        """
        runner = self._taken(go_on)

        def translated(values: np.ndarray, window: tuple[float, float]) -> np.ndarray:
            go_on()
            return runner.child.call(_translate, values, window, limit_s=runner.limit_s)

        try:
            return in_batches(placed, self._unit, translated, batch_size=BATCH)
        except CodedError:
            if runner.child.usable:
                raise
            raise _away("the network was stuck or died") from None
        except (RuntimeError, MemoryError):
            self._try_out(runner)
            if runner.child.usable:
                raise
            raise _away("the network was stuck or died") from None
        finally:
            self._given_back(runner)

    def problem(self) -> str:
        """Returns why nothing can be translated now; empty if it can."""
        return "the network is being restarted" if len(self._lost) >= self._devices else ""

    def close(self) -> None:
        """Ends the processes; one that is at work ends with its volume."""
        self._closed.set()
        shutil.rmtree(self._folder, ignore_errors=True)
        while True:
            try:
                self._free.get_nowait().child.close()
            except queue.Empty:
                return

    def _started(self, device: str) -> _Runner:
        child = Child()
        try:
            batch_s = child.call(_load, self._folder, device, self._threads, limit_s=LOAD_S)
        except (RuntimeError, MemoryError) as error:  # a device fails in many ways
            child.close()
            raise JobError("E-SERVE-05", device=device, reason=str(error)) from None
        except BaseException:
            child.close()
            raise
        LOG.info("the network on %s runs in process %s", device, child.pid)
        return _Runner(child, device, max(LEAST_S, SLOWER * batch_s))

    def _taken(self, go_on: Callable[[], None]) -> _Runner:
        while True:
            go_on()
            if problem := self.problem():
                raise _away(problem)
            try:
                return self._free.get(timeout=LOOK_S)
            except queue.Empty:
                continue

    def _watch(self) -> None:
        while not self._closed.wait(WATCH_S):
            self._check()

    def _check(self) -> None:
        """Looks whether the processes that have nothing to do still answer."""
        for _ in range(self._free.qsize()):
            try:
                runner = self._free.get_nowait()
            except queue.Empty:
                return
            try:
                runner.child.call(abs, 0, limit_s=LEAST_S)
            except CodedError:
                pass
            finally:
                self._given_back(runner)

    def _try_out(self, runner: _Runner) -> None:
        """Ends a process whose device makes no image any more."""
        try:
            runner.child.call(_translate_nothing, limit_s=runner.limit_s)
        except Exception:  # a device fails in many ways
            runner.child.close()

    def _given_back(self, runner: _Runner) -> None:
        if self._closed.is_set():
            runner.child.close()
        elif runner.child.usable:
            self._free.put(runner)
            if self._closed.is_set():  # just now: `close` may have looked before
                self.close()
        else:
            LOG.error("the network on %s was stuck or died, and is started anew", runner.device)
            self._lost.add(runner.device)
            threading.Thread(target=self._replace, args=(runner.device,), daemon=True, name="replace").start()

    def _replace(self, device: str) -> None:
        while not self._closed.is_set():
            try:
                runner = self._started(device)
            except Exception as error:  # a device fails in many ways, and may come back
                LOG.error("the network does not start on %s: %s", device, type(error).__name__)
                self._closed.wait(AGAIN_S)
                continue
            self._lost.discard(device)
            self._given_back(runner)
            return


def _load(folder: Path, device: str, threads: int) -> float:
    """Loads the network into this process, and returns the seconds that a batch takes."""
    torch.set_num_threads(threads)
    translator = load_translator(folder, device=device)
    _LOADED[:] = [translator]
    _translate_nothing()  # a first image needs what later ones have
    empty = np.full((BATCH, translator.size, translator.size), translator.task.source.background, np.float32)
    began = time.perf_counter()
    _translate(empty, (0.0, 1.0))
    return time.perf_counter() - began


def _translate_nothing() -> None:
    size, background = _LOADED[0].size, _LOADED[0].task.source.background
    _translate(np.full((1, size, size), background, np.float32), (0.0, 1.0))


def _away(problem: str) -> Refusal:
    return Refusal("E-SERVER-06", problem=problem, again_s=int(AGAIN_S), status=503)


def _translate(values: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    return translate_slices(_LOADED[0], values, window=window, batch_size=BATCH)

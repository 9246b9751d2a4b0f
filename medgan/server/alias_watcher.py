"""Serves the version that an alias names: loads a new model beside the old one, then replaces the old one."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from medgan.data.dicom.attributes import ModelFacts
from medgan.inference.saved_model import ModelManifest
from medgan.inference.translator import NetworkInput
from medgan.logs import LOG
from medgan.server.network import Network

LOOK_S = 4.0
AGAIN_S = 60.0
ENDED_S = 5.0  # a version that is being loaded then ends with its process


@dataclass(frozen=True)
class Served:
    """Holds one version of a model, ready to translate.

    Attributes:
        card: description of the version in the registry, for people.
    """

    network: Network
    input: NetworkInput
    facts: ModelFacts
    manifest: ModelManifest
    card: str


class Follower:
    """Holds the version being served; a former one ends with the last request that uses it.

    Attributes:
        current: the version being served; replaced in one step, after the next one's network has made images.
        problem: why `current` is not the named version; empty if it is.
        note: a remark on the last change of the version.
    """

    def __init__(
        self,
        named: Callable[[], str],
        load: Callable[[str], Served],
        *,
        look_s: float = LOOK_S,
        again_s: float = AGAIN_S,
    ) -> None:
        """Loads the version that is named now, and starts to follow the alias.

        Args:
            named: returns the number of the version that should be served.
            look_s: seconds between two checks of the alias.
            again_s: seconds until a version that could not be loaded is tried again.
        """
        self._named, self._load, self._look_s, self._again_s = named, load, look_s, again_s
        self._failed, self._failed_at = "", 0.0
        self.current, self.problem, self.note = load(named()), "", ""
        self._turn = threading.Lock()
        self._former: list[Served] = []
        self._requests: Counter[int] = Counter()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True, name="follower")
        self._thread.start()

    def close(self) -> None:
        """Stops following the alias, and ends the networks."""
        self._end.set()
        self._thread.join(ENDED_S)
        for served in (self.current, *self._former):
            served.network.close()

    @contextmanager
    def in_use(self) -> Iterator[Served]:
        """Yields the version being served, whose network does not end inside the context."""
        with self._turn:
            served = self.current
            self._requests[id(served)] += 1
        try:
            yield served
        finally:
            with self._turn:
                self._requests[id(served)] -= 1
            self._end_former()

    def _end_former(self) -> None:
        with self._turn:
            ended = [one for one in self._former if not self._requests[id(one)]]
            self._former = [one for one in self._former if self._requests[id(one)]]
        for served in ended:
            served.network.close()

    def _follow(self) -> None:
        while not self._end.wait(self._look_s):
            self.look()

    def look(self) -> None:
        """Changes to the version that is named now; keeps the present one if that fails in any way."""
        serving = self.current.facts.version
        try:
            number = self._named()
        except Exception as error:  # a registry fails in many ways, and none may end the service
            self._tell(f"the registry does not say which version to serve; version {serving} goes on", error)
            return
        if number == serving:
            self._tell("")
            return
        if number == self._failed and time.monotonic() - self._failed_at < self._again_s:
            return
        try:
            served = self._load(number)
        except Exception as error:  # a model also fails in many ways
            self._failed, self._failed_at = number, time.monotonic()
            self._tell(f"version {number} cannot be loaded; version {serving} goes on being served", error)
            return
        self._failed, self.note = "", _remark(self.current, served)
        with self._turn:
            self._former.append(self.current)
            self.current = served
        self._end_former()
        LOG.info("serving %s version %s in place of version %s", served.facts.name, number, serving)
        self._tell("")

    def _tell(self, problem: str, error: Exception | None = None) -> None:
        if problem and problem != self.problem:
            LOG.warning("%s (%s: %.300s)", problem, type(error).__name__, " ".join(str(error).split()))
        self.problem = problem


def _remark(old: Served, new: Served) -> str:
    if old.manifest.task == new.manifest.task:
        return ""
    return (
        f"version {new.facts.version} does the task {new.manifest.task}; "
        f"version {old.facts.version}, served before it, did {old.manifest.task}"
    )

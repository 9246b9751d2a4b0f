"""A follower replaces the served model when the alias moves, and keeps the old one when the next fails."""

import time
from dataclasses import replace

import pytest
from refusal import refusal

from medgan.data.dicom.attributes import ModelFacts
from medgan.errors import InputError
from medgan.server.alias_watcher import Follower, Served

pytestmark = pytest.mark.unit

DAMAGED = InputError("E-MODEL-05", folder="model", weights_sha256="ab", digest="cd")


class Network:
    """Stands for a network, and knows whether it has ended."""

    def __init__(self):
        self.closed = False

    def close(self):
        self.closed = True


class Registry:
    """Stands for a registry that names a version and loads it, or fails with the errors in `broken`."""

    def __init__(self, served):
        self.served, self.number, self.broken, self.loads = served, "1", {}, []

    def named(self):
        if "registry" in self.broken:
            raise self.broken["registry"]
        return self.number

    def load(self, number):
        self.loads.append(number)
        if number in self.broken:
            raise self.broken[number]
        return replace(self.served, facts=replace(self.served.facts, version=number))


@pytest.fixture
def registry(translator_of, manifest):
    facts = ModelFacts(name="medgan-pet2ct", version="", digest="ab" * 32)
    translator = translator_of()
    return Registry(Served(Network(), translator.input, facts, manifest, card=""))


@pytest.fixture
def follow(registry):
    """Starts followers that check the alias only when a test calls `look`."""
    started = []

    def start(**times):
        started.append(Follower(registry.named, registry.load, **{"look_s": 1000.0, **times}))
        return started[-1]

    yield start
    for follower in started:
        follower.close()


def state(follower):
    return follower.current.facts.version, follower.problem


def test_follower_serves_named_version_after_one_load(registry, follow):
    follower = follow()
    follower.look()
    assert state(follower) == ("1", "") and registry.loads == ["1"]


def test_follower_replaces_version_and_goes_back(registry, follow):
    follower = follow()
    first = follower.current
    for number in ("2", "1"):
        registry.number = number
        follower.look()
        assert state(follower) == (number, "")
    assert first.facts.version == "1", "a request that took the first version keeps it"


def test_follower_checks_alias_periodically(registry, follow):
    follower = follow(look_s=0.01)
    registry.number = "2"
    end = time.monotonic() + 20
    while state(follower) != ("2", "") and time.monotonic() < end:
        time.sleep(0.01)
    assert state(follower) == ("2", "")


@pytest.mark.parametrize("error", [DAMAGED, RuntimeError(), OSError()])
def test_follower_keeps_version_when_next_cannot_be_loaded(registry, follow, error):
    follower = follow()
    registry.number, registry.broken = "2", {"2": error}
    follower.look()
    assert state(follower) == ("1", "version 2 cannot be loaded; version 1 goes on being served")
    registry.number = "3"
    follower.look()
    assert state(follower) == ("3", "")


def test_follower_does_not_retry_failed_version_at_once(registry, follow):
    follower = follow()
    registry.number, registry.broken = "2", {"2": OSError()}
    follower.look()
    follower.look()
    assert registry.loads == ["1", "2"]


def test_follower_serves_version_that_loads_later(registry, follow):
    follower = follow(again_s=0.0)
    registry.number, registry.broken = "2", {"2": OSError()}
    follower.look()
    registry.broken = {}
    follower.look()
    assert state(follower) == ("2", "")


def test_follower_ends_network_of_former_version(registry, follow):
    follower = follow()
    first = follower.current.network
    registry.served = replace(registry.served, network=Network())
    registry.number = "2"
    follower.look()
    assert first.closed and not follower.current.network.closed


def test_follower_leaves_network_to_requests_that_use_it(registry, follow):
    follower = follow()
    with follower.in_use() as first, follower.in_use() as again:
        assert again is first
        registry.served = replace(registry.served, network=Network())
        registry.number = "2"
        follower.look()
        with follower.in_use() as second:
            assert (first.facts.version, second.facts.version) == ("1", "2")
        assert not first.network.closed
    assert first.network.closed and not second.network.closed


def test_follower_ends_all_networks_at_its_end(registry, follow):
    follower = follow()
    with follower.in_use() as first:
        registry.served = replace(registry.served, network=Network())
        registry.number = "2"
        follower.look()
        follower.close()
        assert first.network.closed and follower.current.network.closed


def test_follower_keeps_version_when_registry_does_not_answer(registry, follow):
    follower = follow()
    registry.broken = {"registry": ConnectionError("no route to host")}
    follower.look()
    assert state(follower) == ("1", "the registry does not say which version to serve; version 1 goes on")
    registry.broken = {}
    follower.look()
    assert state(follower) == ("1", "")


def test_follower_notes_version_of_other_task(registry, follow, manifest):
    follower = follow()
    registry.served = replace(registry.served, manifest=manifest.model_copy(update={"task": "pet_denoise"}))
    registry.number = "2"
    follower.look()
    assert follower.note == "version 2 does the task pet_denoise; version 1, served before it, did pet2ct"


def test_follower_refuses_first_version_that_cannot_be_loaded(registry, follow):
    registry.broken = {"1": DAMAGED}
    with pytest.raises(InputError, check=refusal("E-MODEL-05", folder="model")):
        follow()

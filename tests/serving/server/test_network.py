"""A network that is stuck or dies is noticed within ten seconds, replaced, and costs its requests a 503."""

import os
import shutil
import signal
import time

import numpy as np
import pytest
from refusal import refusal

from medgan.data.volume import Volume
from medgan.inference.saved_model import load_translator
from medgan.inference.translator import place, translate_placed
from medgan.processes.child import Stopped
from medgan.server import network as module
from medgan.server.network import ChildNetwork
from medgan.server.upload import Refusal

pytestmark = pytest.mark.timeout(120)
NOTICED_S = 10.0
REPLACED_S = 60.0


@pytest.fixture
def translator(model_folder):
    return load_translator(model_folder)


@pytest.fixture
def placed(translator, volume):
    return place(volume, translator.input)


@pytest.fixture
def network(model_folder, tmp_path):
    started = ChildNetwork(shutil.copytree(model_folder, tmp_path / "copy"), ["cpu"], threads=1, unit="HU")
    yield started
    started.close()


def pid_of(network):
    runner = network._free.get(timeout=30)
    network._free.put(runner)
    return runner.child.pid


def go_on():
    """Never ends a request."""


def is_back(network):
    end = time.monotonic() + REPLACED_S
    while network.problem() and time.monotonic() < end:
        time.sleep(0.1)
    return not network.problem()


def test_network_in_child_gives_same_values(network, translator, placed):
    np.testing.assert_array_equal(network.translate(placed, go_on).array, translate_placed(translator, placed).array)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL, signal.SIGSEGV])
def test_idle_network_that_is_lost_is_noticed_and_replaced(network, placed, number):
    pid, began = pid_of(network), time.monotonic()
    os.kill(pid, number)
    while not network.problem():
        network._check()
        assert time.monotonic() - began < NOTICED_S
    with pytest.raises(Refusal, check=refusal("E-SERVER-06")) as caught:
        network.translate(placed, go_on)
    assert caught.value.status == 503
    assert is_back(network) and pid_of(network) != pid
    assert isinstance(network.translate(placed, go_on), Volume)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_network_that_is_lost_with_a_volume_refuses_it_and_is_replaced(network, placed, number):
    pid, began = pid_of(network), time.monotonic()
    os.kill(pid, number)
    with pytest.raises(Refusal, check=refusal("E-SERVER-06")):
        network.translate(placed, go_on)
    assert time.monotonic() - began < NOTICED_S
    assert is_back(network)
    assert isinstance(network.translate(placed, go_on), Volume)


def test_request_that_waits_for_the_network_ends_with_its_client(network, placed):
    taken = network._free.get(timeout=30)

    def gone():
        raise Stopped

    with pytest.raises(Stopped):
        network.translate(placed, gone)
    network._free.put(taken)
    assert network.translate(placed, go_on)


def test_network_that_does_not_start_again_is_tried_again(network, placed, monkeypatch):
    monkeypatch.setattr(module, "AGAIN_S", 0.2)
    hidden = network._folder.rename(network._folder.with_name("hidden"))
    os.kill(pid_of(network), signal.SIGKILL)
    network._check()
    time.sleep(1.0)
    assert network.problem()
    hidden.rename(network._folder)
    assert is_back(network)
    assert network.translate(placed, go_on)


def test_closed_network_ends_its_process_and_removes_its_files(network):
    pid = pid_of(network)
    network.close()
    assert not os.path.exists(f"/proc/{pid}") and not network._folder.exists()


def test_network_watches_itself(network):
    pid = pid_of(network)
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + REPLACED_S
    while pid_of(network) == pid and time.monotonic() < end:
        time.sleep(0.1)
    assert pid_of(network) != pid

"""The probe before a search, on real local Ray: storage, data, tracking, and one step of the largest trial."""

import http.server
import os
import threading

import pytest
import ray
from refusal import refusal

from medgan.config import with_values
from medgan.data.dataset import PreparedDataset
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.distributed.probe import (
    DRIVER,
    check_nodes,
    look_around,
    make_step,
    probe,
    refuse_local_stores,
    refuse_silent_server,
    try_step,
)
from medgan.distributed.resources import Resources
from medgan.errors import InputError
from medgan.presets.medgan import medgan
from medgan.tasks import TASKS

LIMIT_S = 120.0
TINY = with_values(
    medgan(),
    {
        "data.size": 32,
        "generator.num_blocks": 1,
        "generator.base_channels": 4,
        "discriminator.base_channels": 4,
        "loss.style_blocks": [1],
        "loss.content_blocks": [1],
        "train.batch_size": 2,
        "extractor.weights": "random",
    },
)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """The state of a small prepared data set."""
    folder = tmp_path_factory.mktemp("probe")
    source = write_phantoms(folder / "phantoms", patients=6, slices=4, matrix=32)
    return PreparedDataset.open(prepare(PrepareRequest(source, TASKS["pet2ct"], 32, folder / "datasets"))).state


@pytest.fixture(scope="module")
def nodes():
    """A Ray cluster of this machine alone; node -> host."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=128 << 20, log_to_driver=False)
    yield {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes()}
    ray.shutdown()


def run_probe(output, state, config=TINY, tracking="sqlite:///runs.db"):
    stores = {"--study-uri": "sqlite:///study.db", "--tracking-uri": tracking}
    return probe(config, state, output, stores, Resources(workers=1), limit_s=LIMIT_S)


def test_probe_tries_storage_and_step_and_leaves_no_file(nodes, state, tmp_path):
    storage, step = run_probe(tmp_path, state)
    assert storage == f"can write to {tmp_path} and read the data set"
    assert step.startswith("one step of the largest trial: ") and step.endswith(" GB a worker")
    assert list(tmp_path.iterdir()) == []


def test_probe_refuses_output_folder_that_driver_cannot_write(nodes, state, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, check=refusal("E-PROBE-03", output=tmp_path / "file", strerror="Not a directory")):
        run_probe(tmp_path / "file", state)


def test_check_nodes_names_node_with_different_folder(nodes, state, tmp_path):
    opened = os.open(tmp_path, os.O_RDONLY)
    own = os.dup2(opened, 900)  # a path that leads this process, and no other, to the folder
    try:
        fault = f"node {next(iter(nodes.values()))} .*is it shared storage"
        with pytest.raises(InputError, check=refusal("E-PROBE-04"), match=fault):
            check_nodes(nodes, type(tmp_path)(f"/proc/self/fd/{own}/"), state, limit_s=LIMIT_S)
    finally:
        os.close(own)
        os.close(opened)
    assert list(tmp_path.iterdir()) == []


def test_check_nodes_names_node_that_does_not_answer_in_time(nodes, state, tmp_path):
    fault = f"node {next(iter(nodes.values()))} .*: no answer within 0 s"
    with pytest.raises(InputError, check=refusal("E-PROBE-04"), match=fault):
        check_nodes(nodes, tmp_path, state, limit_s=0)
    assert list(tmp_path.iterdir()) == []


def test_check_nodes_names_node_that_is_gone(nodes, state, tmp_path):
    gone = {"ab" * 28: "elsewhere"}
    fault = r"node elsewhere \(abababab\): could not be asked \(TaskUnschedulableError\)"
    with pytest.raises(InputError, check=refusal("E-PROBE-04"), match=fault):
        check_nodes({**nodes, **gone}, tmp_path, state, limit_s=LIMIT_S)


def test_try_step_refuses_step_that_takes_too_long(nodes, state):
    with pytest.raises(InputError, check=refusal("E-PROBE-05", limit_s="0.001"), match="generator.num_blocks=1, "):
        try_step(TINY, state, Resources(workers=1), limit_s=0.001)


def test_try_step_refuses_step_without_enough_memory(nodes, state):
    large = with_values(TINY, {"generator.base_channels": 1 << 20})
    with pytest.raises(InputError, check=refusal("E-PROBE-07"), match="generator.base_channels=1048576, "):
        try_step(large, state, Resources(workers=1), limit_s=LIMIT_S)


def test_try_step_refuses_configuration_that_cannot_be_trained(nodes, state):
    unfit = with_values(TINY, {"extractor.weights": "/nowhere/vgg.pth"})
    with pytest.raises(
        InputError, check=refusal("E-PROBE-08"), match="InputError: extractor.weights: .*/nowhere/vgg.pth"
    ):
        try_step(unfit, state, Resources(workers=1), limit_s=LIMIT_S)


def test_make_step_shares_batch_among_workers(state):
    step = make_step(with_values(TINY, {"train.batch_size": 4}), str(state), 2, 1)
    assert (step.fault, step.out_of_memory) == ("", False)
    assert step.seconds > 0 and step.bytes > 100 << 20


class TestLookAround:
    """The part of the probe that runs on a node; here it runs in this process."""

    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / ".probe-1"
        folder.mkdir()
        (folder / DRIVER).write_text(folder.name)
        return folder

    @pytest.fixture
    def digest(self, state):
        return PreparedDataset.open(state).digest

    def test_look_around_writes_answer_beside_file_of_driver(self, folder, state, digest):
        assert look_around(str(folder), "node", str(state), digest) == ""
        assert (folder / "node").read_text() == folder.name

    def test_look_around_reports_changed_file_of_driver(self, folder, state, digest):
        (folder / DRIVER).write_text("another")
        assert look_around(str(folder), "node", str(state), digest).endswith("holds something else there")

    def test_look_around_reports_folder_that_cannot_be_written(self, folder, state, digest):
        (folder / "node").mkdir()
        assert look_around(str(folder), "node", str(state), digest) == f"cannot write to {folder} (Is a directory)"

    def test_look_around_reports_different_data_set(self, folder, state):
        assert "is another data set there" in look_around(str(folder), "node", str(state), "0" * 64)

    def test_look_around_reports_missing_data_set(self, folder, tmp_path):
        assert "gone.json is missing" in look_around(str(folder), "node", str(tmp_path / "gone.json"), "0" * 64)


class TestStores:
    """The addresses of the study database and of MLflow."""

    def test_sqlite_is_refused_on_several_hosts(self):
        with pytest.raises(
            InputError, check=refusal("E-PROBE-01", option="--study-uri", uri="sqlite:///s.db", num_hosts="2")
        ):
            refuse_local_stores({"--tracking-uri": "http://u:secret@host", "--study-uri": "sqlite:///s.db"}, 2)

    def test_sqlite_is_accepted_on_one_host(self):
        refuse_local_stores({"--tracking-uri": "sqlite:///runs.db"}, 1)

    def test_silent_server_is_refused_without_showing_password(self):
        with pytest.raises(InputError, check=refusal("E-PROBE-02", uri="http://u:***@127.0.0.1:9"), match="refused"):
            refuse_silent_server("http://u:secret@127.0.0.1:9")

    def test_server_is_accepted_with_any_answer(self):
        class Refusing(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_error(403)

            def log_message(self, *_):
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            refuse_silent_server(f"http://127.0.0.1:{server.server_port}")
            server.shutdown()

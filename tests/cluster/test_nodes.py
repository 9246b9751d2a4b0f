"""A Ray cluster of three nodes on this machine: one is lost in the middle of a study, one comes, the study ends."""

import re

import optuna
import pytest

from medgan.search.study import finished, first_attempt_of

LIMIT_S = 600
TRIALS, EPOCHS = 3, 6
SPACE = f"""
set:
  data.size: 32
  generator.base_channels: 4
  discriminator.base_channels: 4
  extractor.weights: random
  loss.style_blocks: [1]
  loss.content_blocks: [1]
  train.epochs: {EPOCHS}
  train.batch_size: 8
search:
  optim.generator_lr: {{log: [1.0e-3, 2.0e-3]}}
scheduler: {{grace_epochs: {EPOCHS}}}
trials: {TRIALS}
"""
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
def add():
    return cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
nodes = [add(), add()]
print("address", cluster.address, flush=True)
for line in sys.stdin:
    verb, *raylets = line.split()
    if verb == "remove":
        node = next(node for node in nodes if str(node.all_processes["raylet"][0].process.pid) in raylets)
        cluster.remove_node(node, allow_graceful=False)
        print("removed", flush=True)
    if verb == "add":
        nodes.append(add())
        print("added", flush=True)
cluster.shutdown()
"""
"""Obeys lines on standard input: `remove PIDS` ends the first added node whose raylet is among them; ends, with its
nodes, when that is closed."""


@pytest.fixture
def nodes(tmp_path, command, descendants):
    """A cluster in a process of its own; its address, and how to remove and add nodes."""
    host = command(tmp_path / "home", "-c", CLUSTER)
    host.address = re.search(r"address (\S+)", host.until("^address "))[1]
    yield host
    left = descendants(host.process.pid)
    host.process.stdin.close()
    host.process.wait(60)
    for process in left:
        if process.is_alive:
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
def test_study_survives_loss_of_a_node_and_uses_a_new_one(tmp_path, dicom, search, postgresql, workers_of, nodes):
    uris = [postgresql(f"nodes_{store}") for store in ("study", "mlflow")]
    places = ["--study-uri", uris[0], "--tracking-uri", uris[1]]
    home = tmp_path / "home"
    job = search(home, SPACE, "--study", "nodes", "--data", str(dicom), *places, RAY_ADDRESS=nodes.address)
    job.until(r"trial 0: epoch 2/")
    raylets = {process.parent for process in workers_of(home)}
    assert len(raylets) == 2
    nodes.tell(f"remove {' '.join(map(str, raylets))}")
    nodes.until("^removed")
    job.until(r"trial 0: .* the worker group restarts|trial 0: (interrupted|continues)")
    nodes.tell("add")
    nodes.until("^added")
    assert job.end() == 0, job.text
    study = optuna.load_study(study_name="nodes", storage=uris[0])
    assert [first_attempt_of(trial) for trial in finished(study)] == list(range(TRIALS))
    assert {trial.state.name for trial in finished(study)} == {"COMPLETE"}
    (went_on,) = re.findall(r"trial 0: continues after epoch (\d), from its checkpoint", job.text)
    assert int(went_on) >= 2

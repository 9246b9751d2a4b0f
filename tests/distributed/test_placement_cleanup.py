"""The removal of placement groups that a dead controller left behind."""

import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from medgan.distributed.cluster import SETTINGS, _start
from medgan.distributed.placement_cleanup import OrphanedPlacementGroups


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@ray.remote(num_cpus=0)
class Controller:
    """Makes a placement group, as Ray Train's controller does, with any number of workers in it."""

    def make(self, resources, workers):
        group = placement_group([resources])
        ray.get(group.ready())
        strategy = PlacementGroupSchedulingStrategy(group)
        self.workers = [Worker.options(scheduling_strategy=strategy).remote() for _ in range(workers)]
        return group.id.hex()


@ray.remote(num_cpus=1)
class Worker: ...


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        _start({"log_to_driver": False, "configure_logging": False})
        yield
        ray.shutdown()


def state_of(group):
    return placement_group_table()[group]["state"]


@pytest.mark.timeout(200)
def test_placement_cleanup_removes_only_groups_long_without_actor(cluster):
    clock = Clock()
    orphans = OrphanedPlacementGroups(patience_s=20, clock=clock)
    dead, alive, tune = (Controller.remote() for _ in range(3))
    left = ray.get(dead.make.remote({"CPU": 1}, 0))
    used = ray.get(alive.make.remote({"CPU": 1}, 1))
    memory = ray.get(tune.make.remote({"memory": 1 << 20}, 0))
    ray.kill(dead)
    assert orphans.remove() == []
    clock.now = 19
    assert orphans.remove() == []
    clock.now = 21
    assert orphans.remove() == [left]
    assert (state_of(left), state_of(used), state_of(memory)) == ("REMOVED", "CREATED", "CREATED")
    clock.now = 100
    assert orphans.remove() == []

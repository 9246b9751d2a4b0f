"""Removes placement groups whose controller died before Ray Train's own cleaner knew of them (ray 2.60)."""

import time
from collections.abc import Callable

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.state import list_actors, list_placement_groups

from medgan.logs import LOG

PATIENCE_S = 20.0
"""Ray makes a group's workers right after its placement; on a busy machine it takes seconds."""
MOST = 10_000
ASK_S = 10


class OrphanedPlacementGroups:
    """Finds orphaned placement groups and removes them; call `remove` from time to time.

    Args:
        patience_s: how long a placement group must be without any actor before it is removed.
        clock: returns the time in seconds; tests replace it.
    """

    def __init__(self, patience_s: float = PATIENCE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience_s, self.clock = patience_s, clock
        self.empty_since: dict[str, float] = {}

    def remove(self) -> list[str]:
        """Removes this job's groups of CPU cores that were empty for `patience_s`; returns their ids."""
        now, empty = self.clock(), _empty()
        self.empty_since = {group: self.empty_since.get(group, now) for group in empty}
        left = [group for group, since in self.empty_since.items() if now - since >= self.patience_s]
        for group in left:
            LOG.info("placement group %s was left behind by a dead controller: removed", group)
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group))))
        return left


def _empty() -> list[str]:
    """Returns the placement groups that hold CPU cores for no actor; Tune's own groups hold memory only."""
    mine = ("creator_job_id", "=", ray.get_runtime_context().get_job_id())
    groups = list_placement_groups(
        filters=[("state", "=", "CREATED"), mine], detail=True, limit=MOST, timeout=ASK_S, raise_on_missing_output=False
    )
    actors = list_actors(
        filters=[("state", "!=", "DEAD")], detail=True, limit=MOST, timeout=ASK_S, raise_on_missing_output=False
    )
    used = {actor.placement_group_id for actor in actors}
    return [
        group.placement_group_id
        for group in groups
        if group.placement_group_id not in used
        and any("CPU" in bundle["unit_resources"] for bundle in group.bundles or ())
    ]

"""Placement groups whose controller died before Ray Train's own cleaner knew of them (ray 2.60): nobody frees them."""

from __future__ import annotations

import time
from collections.abc import Callable

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.state import list_actors, list_placement_groups

from medgan.logs import LOG

PATIENCE_S = 20.0
"""A group's workers are made within a moment of its placement; on a busy machine within seconds."""
MOST = 10_000
ASK_S = 10


class Orphans:
    """Finds and removes them, when asked from time to time.

    Args:
        patience_s: how long a placement group has to be without any actor.
        clock: seconds, for tests.
    """

    def __init__(self, patience_s: float = PATIENCE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience_s, self.clock = patience_s, clock
        self.empty_since: dict[str, float] = {}

    def remove(self) -> list[str]:
        """Removes what has been empty for so long; their ids. Only this job's groups of CPU cores are looked at."""
        now, empty = self.clock(), _empty()
        self.empty_since = {group: self.empty_since.get(group, now) for group in empty}
        left = [group for group, since in self.empty_since.items() if now - since >= self.patience_s]
        for group in left:
            LOG.info("placement group %s was left behind by a dead controller: removed", group)
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group))))
        return left


def _empty() -> list[str]:
    """Placement groups that hold CPU cores for no actor; Tune's own hold memory alone."""
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

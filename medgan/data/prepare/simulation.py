"""Sources made of targets, as a plan says."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

import numpy as np

from medgan.data.prepare.plan import LowDosePlan, MotionPlan
from medgan.data.volume import Volume


def simulated(target: Volume, settings: MotionPlan | LowDosePlan, *, patient: str) -> tuple[Volume, dict[str, list]]:
    """A source for this target, the same whenever it is made, and what was drawn for it beside noise.

    Args:
        target: what the network shall give back.
        settings: kind and strength.
        patient: hash; with the settings' seed it decides what is drawn.
    """
    digest = hashlib.sha256(f"{settings.seed} {patient}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    # scikit-image's transforms take a second to import and TorchIO three, which no other conversion should wait for
    if isinstance(settings, LowDosePlan):
        from medgan.data.prepare.low_dose import simulate_low_dose

        counts, fraction = settings.total_counts, settings.dose_fraction
        return simulate_low_dose(target, total_counts=counts, dose_fraction=fraction, random=random), {}
    from medgan.data.prepare.motion import apply_motion, draw_motion

    motion = draw_motion(random, severity=settings.severity)
    return apply_motion(target, motion), asdict(motion)

"""Simulates sources from targets, as a plan says."""

import hashlib
from dataclasses import asdict

import numpy as np

from medgan.data.prepare.plan import LowDosePlan, MotionPlan
from medgan.data.volume import Volume


def simulated(target: Volume, settings: MotionPlan | LowDosePlan, *, patient: str) -> tuple[Volume, dict[str, list]]:
    """Returns a source for this target, the same in every call, and the values drawn for it, without the noise.

    Args:
        patient: hash of the patient; with the settings' seed it decides all draws.
    """
    digest = hashlib.sha256(f"{settings.seed} {patient}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    # imported late: scikit-image's transforms take a second and TorchIO three, and only these simulations need them
    if isinstance(settings, LowDosePlan):
        from medgan.data.prepare.low_dose import simulate_low_dose

        counts, fraction = settings.total_counts, settings.dose_fraction
        return simulate_low_dose(target, total_counts=counts, dose_fraction=fraction, random=random), {}
    from medgan.data.prepare.motion import apply_motion, draw_motion

    motion = draw_motion(random, severity=settings.severity)
    return apply_motion(target, motion), asdict(motion)

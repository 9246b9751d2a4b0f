"""Draws a patient's pair: a slice of source and target, one over the other, and histograms of all slices."""

import base64
import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image as Picture

from medgan.data.manifest import IntensityScale
from medgan.tasks import Image

PICTURE = "picture.svg"
CT_WINDOW_HU = (-300.0, 400.0)
OVERLAY_OPACITY = 0.75  # of the source at the upper end of its window
PANEL_PX, GAP_PX, TITLE_PX = 220, 6, 18
HISTOGRAM_LEFT, HISTOGRAM_PX = 3 * (PANEL_PX + GAP_PX) + 40, (270, 72)
WIDTH_PX, HEIGHT_PX = HISTOGRAM_LEFT + HISTOGRAM_PX[0] + 30, TITLE_PX + PANEL_PX + 2
COLORS = {"source": "#b3400b", "target": "#3c4a57"}
NUM_BINS = 135


class PairSide(NamedTuple):
    """Describes one image of a pair.

    Attributes:
        stored: int16 (slices, H, W).
    """

    image: Image
    stored: np.ndarray
    scale: IntensityScale
    window: tuple[float, float]

    @property
    def middle(self) -> np.ndarray:
        """Returns the middle slice, (H, W), in the image's unit."""
        return self.scale.physical(self.stored[len(self.stored) // 2])


def draw_pair(source: PairSide, target: PairSide) -> str:
    """Returns an SVG: middle slices of source and target, one over the other, and both histograms."""
    images = [_grey(source), _grey(target), _over(source, target)]
    titles = [f"source ({source.image.modality})", f"target ({target.image.modality})", "source over target"]
    parts = []
    for number, (colors, title) in enumerate(zip(images, titles, strict=True)):
        left = number * (PANEL_PX + GAP_PX)
        place = f'x="{left}" y="{TITLE_PX}" width="{PANEL_PX}" height="{PANEL_PX}"'
        parts.append(f'<text x="{left + PANEL_PX / 2}" y="13" text-anchor="middle">{title}</text>')
        parts.append(f'<image {place} preserveAspectRatio="none" href="data:image/jpeg;base64,{_jpeg(colors)}"/>')
        parts.append(f'<rect {place} fill="none" stroke="#57606a" stroke-width="0.5"/>')
    for number, (name, side) in enumerate({"source": source, "target": target}.items()):
        parts += _histogram(name, side, top=TITLE_PX + number * (HISTOGRAM_PX[1] + 44))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" width="{WIDTH_PX}" '
        f'height="{HEIGHT_PX}" font-family="sans-serif" font-size="11">\n' + "\n".join(parts) + "\n</svg>"
    )


def _grey(side: PairSide) -> np.ndarray:
    """Returns uint8 (H, W, 3), rows down the page, as a reader of that modality expects it: PET uptake is dark."""
    low, high = CT_WINDOW_HU if side.image.modality == "CT" else side.window
    shares = np.clip((side.middle - low) / (high - low), 0.0, 1.0)
    shares = 1 - shares if side.image.modality == "PT" else shares
    return np.repeat(np.rint(255 * shares).astype(np.uint8)[..., None], 3, axis=2)


def _over(source: PairSide, target: PairSide) -> np.ndarray:
    """Returns the target with the source over it, from red to yellow; stronger values are more opaque."""
    low, high = source.window
    strength = np.clip((source.middle - low) / (high - low), 0.0, 1.0)[..., None]
    opacity = OVERLAY_OPACITY * np.sqrt(strength)
    colors = np.concatenate([np.full_like(strength, 255), 255 * strength, np.zeros_like(strength)], axis=2)
    return np.rint(opacity * colors + (1 - opacity) * _grey(target)).astype(np.uint8)


def _jpeg(colors: np.ndarray) -> str:
    """Returns a JPEG in Base64; every pixel of a small slice stays a square."""
    times = max(1, PANEL_PX // len(colors))
    buffer = io.BytesIO()
    enlarged = colors.repeat(times, axis=0).repeat(times, axis=1)
    Picture.fromarray(enlarged).save(buffer, format="jpeg", quality=90, subsampling=0)
    return base64.b64encode(buffer.getvalue()).decode()


def _histogram(name: str, side: PairSide, *, top: float) -> Iterator[str]:
    """Yields the SVG of a histogram of every second row and column; its logarithmic axis ends at the fullest bin."""
    counts = np.bincount(side.stored[:, ::2, ::2].view(np.uint16).ravel(), minlength=65536)
    values = side.scale.physical(np.arange(65536, dtype=np.uint16).view(np.int16))
    present = np.flatnonzero(counts)
    low, high = (float(pick(*side.window, pick(values[present]))) for pick in (min, max))
    heights, _ = np.histogram(values[present], bins=NUM_BINS, range=(low, high), weights=counts[present])
    width, height = HISTOGRAM_PX
    tops = height * (1 - np.log1p(heights) / np.log1p(heights.max()))
    steps = " ".join(
        f"H{HISTOGRAM_LEFT + width * number / NUM_BINS:.1f} V{top + level:.1f}" for number, level in enumerate(tops)
    )
    right, bottom = HISTOGRAM_LEFT + width, top + height
    yield f'<text x="{HISTOGRAM_LEFT}" y="{top - 5}">{name} ({side.image.modality}), voxels by {side.image.unit}</text>'
    yield f'<path d="M{HISTOGRAM_LEFT} {bottom} {steps} H{right} V{bottom} Z" fill="{COLORS[name]}"/>'
    for edge in side.window:
        x = HISTOGRAM_LEFT + width * (edge - low) / (high - low)
        yield f'<path d="M{x:.1f} {top} V{bottom}" stroke="black" stroke-width="0.8" stroke-dasharray="4 3"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 13}" text-anchor="middle" font-size="10">{edge:.4g}</text>'

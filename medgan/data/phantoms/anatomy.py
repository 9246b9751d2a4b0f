"""Draws made-up anatomy from smooth random shapes: the tissue at every voxel of a head, thorax, pelvis or thigh."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Tissue(NamedTuple):
    """Describes a tissue: CT number in HU, FDG uptake in SUV and T1-weighted MR signal in arbitrary units."""

    hu: float
    suv: float
    mr: float


TISSUES = {
    "air": Tissue(-1000, 0.0, 0),
    "skin": Tissue(20, 0.9, 450),
    "fat": Tissue(-105, 0.3, 900),
    "muscle": Tissue(55, 0.8, 380),
    "cortex": Tissue(1050, 0.45, 30),
    "marrow": Tissue(260, 1.5, 560),
    "fatty marrow": Tissue(-40, 0.6, 820),
    "lung": Tissue(-830, 0.45, 50),
    "blood": Tissue(42, 1.6, 240),
    "myocardium": Tissue(60, 4.5, 360),
    "liver": Tissue(65, 2.4, 480),
    "gray matter": Tissue(39, 7.5, 430),
    "white matter": Tissue(28, 3.2, 570),
    "fluid": Tissue(5, 0.6, 140),
    "urine": Tissue(8, 9.0, 120),
    "bowel": Tissue(30, 1.9, 310),
    "gas": Tissue(-900, 0.2, 0),
    "lesion": Tissue(48, 8.0, 290),
}
NAMES = list(TISSUES)


@dataclass
class Canvas:
    """Holds labels on a grid of points, painted shape over shape.

    Attributes:
        x, y, z: (slices, rows, columns): mm to the patient's left, back and head from the middle, bent smoothly.
        labels: (slices, rows, columns): index into `NAMES`.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    labels: np.ndarray
    random: np.random.Generator

    def __post_init__(self) -> None:
        self._measure()

    def _measure(self) -> None:
        """Stores the range of x, y and z in each column, row and slice, so that shapes search a small box only."""
        self._columns_mm = self.x.min((0, 1)), self.x.max((0, 1))
        self._rows_mm = self.y.min((0, 2)), self.y.max((0, 2))
        self._slices_mm = self.z.min((1, 2)), self.z.max((1, 2))

    def taper(self, factor: np.ndarray) -> None:
        """Scales in-plane what is painted from now on, by one factor a voxel."""
        self.x, self.y = self.x / factor, self.y / factor
        self._measure()

    def ellipse(
        self, center: tuple[float, ...], radii: tuple[float, ...], *, degrees: float = 0.0, power: float = 2.0
    ) -> np.ndarray:
        """Returns a mask of an elliptic cylinder (two radii) or ellipsoid (three), in mm; a power above 2 is boxier."""
        angle = np.deg2rad(degrees)
        box = self._box(center, radii, angle)
        x, y = self.x[box] - np.float32(center[0]), self.y[box] - np.float32(center[1])
        along = x * np.float32(np.cos(angle) / radii[0]) + y * np.float32(np.sin(angle) / radii[0])
        across = y * np.float32(np.cos(angle) / radii[1]) - x * np.float32(np.sin(angle) / radii[1])
        distance = np.abs(along) ** power + np.abs(across) ** power
        if len(radii) == 3:
            distance += np.abs((self.z[box] - np.float32(center[2])) / np.float32(radii[2])) ** power
        inside = np.zeros(self.labels.shape, bool)
        inside[box] = distance < 1
        return inside

    def _box(self, center: tuple[float, ...], radii: tuple[float, ...], angle: float) -> tuple[slice, slice, slice]:
        """Returns the slices, rows and columns that hold the turned rectangle around an ellipse."""
        cosine, sine = abs(np.cos(angle)), abs(np.sin(angle))
        columns = _span(self._columns_mm, center[0], radii[0] * cosine + radii[1] * sine)
        rows = _span(self._rows_mm, center[1], radii[0] * sine + radii[1] * cosine)
        slices = _span(self._slices_mm, center[2], radii[2]) if len(radii) == 3 else slice(None)
        return slices, rows, columns

    def paint(self, tissue: str, where: np.ndarray) -> None:
        """Paints a tissue where the mask is set."""
        self.labels[where] = NAMES.index(tissue)

    def bone(
        self,
        center: tuple[float, ...],
        radii: tuple[float, ...],
        wall_mm: float,
        *,
        degrees: float = 0.0,
        inside: str = "marrow",
    ) -> None:
        """Paints a cortex of some thickness around marrow."""
        self.paint("cortex", self.ellipse(center, radii, degrees=degrees))
        core = tuple(max(radius - wall_mm, 1.0) for radius in radii)
        self.paint(inside, self.ellipse(center, core, degrees=degrees))

    def trunk(self, width: float, depth: float, fat_mm: float) -> None:
        """Paints skin, fat and muscle of a rounded cross-section with half axes in mm."""
        for tissue, less in (("skin", 0.0), ("fat", 3.0), ("muscle", 3.0 + fat_mm)):
            self.paint(tissue, self.ellipse((0, 0), (width - less, depth - less), power=2.4))

    def around(self, value: float, spread: float = 0.1) -> float:
        """Returns a value that varies by a share from patient to patient."""
        return value * self.random.uniform(1 - spread, 1 + spread)


def _span(extent_mm: tuple[np.ndarray, np.ndarray], center: float, half: float) -> slice:
    """Returns where an axis is within `half` mm of the center, plus 1 mm for rounding."""
    lowest, highest = extent_mm
    (near,) = np.nonzero((highest > center - half - 1) & (lowest < center + half + 1))
    return slice(near[0], near[-1] + 1) if len(near) else slice(0)


def draw(kind: str, points: tuple[np.ndarray, np.ndarray, np.ndarray], random: np.random.Generator) -> np.ndarray:
    """Returns labels (index into `NAMES`) of one made-up patient at x, y, z in mm, each (slices, rows, columns)."""
    x, y, z = (axis.astype(np.float32) for axis in points)
    phases = random.uniform(0, 2 * np.pi, 4).astype(np.float32)
    scale, shift = random.uniform(0.93, 1.07), random.uniform(-8, 8, 2).astype(np.float32)
    bent_x = (x - shift[0]) / scale + 4 * np.sin(y / 45 + phases[0]) + 2 * np.sin(z / 25 + phases[1])
    bent_y = (y - shift[1]) / scale + 4 * np.sin(x / 50 + phases[2]) + 2 * np.sin(z / 30 + phases[3])
    canvas = Canvas(bent_x, bent_y, z, np.zeros(x.shape, np.uint8), random)
    ANATOMIES[kind](canvas)
    return canvas.labels


def _head(canvas: Canvas) -> None:
    z = canvas.z
    taper = np.sqrt(np.clip(1 - (np.clip(z, 0, None) / 75) ** 2, 0.05, 1))  # the vault closes towards the top
    canvas.taper(taper)
    canvas.paint("skin", canvas.ellipse((0, 0), (77, 97)))
    canvas.paint("fat", canvas.ellipse((0, 0), (74.5, 94.5)))
    canvas.bone((0, 0), (72, 92), 7)
    canvas.paint("cortex", canvas.ellipse((0, 0), (67, 87)) & ~canvas.ellipse((0, 0), (65, 85)))
    canvas.paint("fluid", canvas.ellipse((0, 0), (65, 85)))
    canvas.paint("gray matter", canvas.ellipse((0, 0), (63, 83)))
    angle = np.arctan2(canvas.y, canvas.x)
    folds = 1 + 0.09 * np.sin(17 * angle + z / 7) + 0.05 * np.sin(29 * angle - z / 5)
    white = (canvas.x / 51) ** 2 + (canvas.y / 71) ** 2 < folds**2
    canvas.paint("white matter", white & (np.abs(canvas.x) > 4))
    for side in (-1, 1):
        canvas.paint("gray matter", canvas.ellipse((side * 17, 8, 0), (11, 17, 24), degrees=side * 20))
        canvas.paint("fluid", canvas.ellipse((side * 9, -14, 8), (5, canvas.around(24), 22), degrees=side * 15))
        canvas.paint("fluid", canvas.ellipse((side * 15, 34, 6), (6, 18, 18), degrees=-side * 20))
        canvas.paint("fat", canvas.ellipse((side * 32, -72, -36), (20, 20, 18)))
        canvas.paint("fluid", canvas.ellipse((side * 32, -76, -36), (12, 12, 12)))
    canvas.paint("gas", canvas.ellipse((0, -74, -36), (9, 18, 20)))
    _lesions(canvas, radius_mm=8, box=(35, 45, 20))


def _thorax(canvas: Canvas) -> None:
    canvas.trunk(152, canvas.around(103, 0.06), canvas.around(12, 0.4))
    cage = canvas.ellipse((0, -4), (128, 82)) & ~canvas.ellipse((0, -4), (120, 74))
    angle = np.arctan2(np.abs(canvas.x), canvas.y + 4)  # 0 at the spine: ribs run down towards the front
    ribs = np.sin(canvas.z / 4.5 + 4.5 * angle) > 0.1
    canvas.paint("cortex", cage & ribs)
    for side in (-1, 1):
        canvas.paint("lung", canvas.ellipse((side * 64, 0), (50, 68), degrees=side * 6))
        canvas.bone((side * 92, 74), (26, 5), 2, degrees=-side * 32)
    canvas.paint("fat", canvas.ellipse((2, -12), (27, 48)))
    canvas.paint("liver", canvas.ellipse((-66, 2, -48), (56, 66, canvas.around(52))))
    heart = (24, -22, -8)
    canvas.paint("myocardium", canvas.ellipse(heart, (canvas.around(44), 33, 42), degrees=35))
    canvas.paint("blood", canvas.ellipse(heart, (31, 20, 30), degrees=35))
    canvas.paint("blood", canvas.ellipse((-12, -30), (13, 13)))
    canvas.paint("blood", canvas.ellipse((20, 34), (12, 12)))
    canvas.paint("gas", canvas.ellipse((0, 14, 40), (9, 8, 40)))
    canvas.bone((0, -80), (17, 7), 2.5)
    _vertebra(canvas, 58)
    _lesions(canvas, radius_mm=11, box=(75, 45, 25))


def _pelvis(canvas: Canvas) -> None:
    fat_mm = canvas.around(18, 0.4)
    canvas.trunk(152, canvas.around(102, 0.06), fat_mm)
    canvas.paint("fat", canvas.ellipse((0, -18), (84, 56)))
    for side in (-1, 1):
        canvas.paint("fat", canvas.ellipse((side * 70, 66), (44, 3), degrees=side * 25))
        canvas.bone((side * 86, 8, 26), (12, 50, 46), 3.5, degrees=side * 28)
        canvas.bone((side * 88, 4, -32), (25, 25, 28), 3)
        canvas.paint("muscle", canvas.ellipse((side * 52, -18), (18, 24)))
        canvas.paint("blood", canvas.ellipse((side * 44, -46), (7, 7)))
    canvas.bone((0, 62, 20), (44, 20, 46), 3)
    canvas.paint("fluid", canvas.ellipse((0, 74), (9, 6)))
    for _ in range(7):
        x, y, z = canvas.random.uniform((-45, -58, 5), (45, -8, 40))
        canvas.paint("bowel", canvas.ellipse((x, y, z), (17, 13, 15)))
        canvas.paint("gas", canvas.ellipse((x, y - 4, z), (8, 5, 7)))
    canvas.paint("urine", canvas.ellipse((0, -22, -22), (canvas.around(36, 0.2), 27, 26)))
    canvas.paint("bowel", canvas.ellipse((0, 30), (15, 13)))
    canvas.paint("gas", canvas.ellipse((0, 26), (6, 4)))
    _lesions(canvas, radius_mm=10, box=(60, 35, 25))


def _limb(canvas: Canvas) -> None:
    fat_mm = canvas.around(13, 0.4)
    canvas.taper(1 + canvas.z / 500)
    canvas.trunk(84, 80, fat_mm)
    muscle = canvas.ellipse((0, 0), (81 - fat_mm, 77 - fat_mm), power=2.4)
    angle, radius = np.arctan2(canvas.y - 2, canvas.x + 4), np.hypot(canvas.x + 4, canvas.y - 2)
    septa = np.abs(np.sin(2.5 * angle + radius / 60 + canvas.random.uniform(0, 3))) < 2.2 / np.maximum(radius, 8)
    canvas.paint("fat", muscle & septa & (radius > 20))
    canvas.bone((-4, 2), (canvas.around(17), canvas.around(16)), 6, inside="fatty marrow")
    for x, y in ((34, -6), (38, 8), (20, 38)):
        canvas.paint("blood", canvas.ellipse((x, y), (5, 5)))
    _lesions(canvas, radius_mm=17, box=(38, 38, 18))


def _vertebra(canvas: Canvas, y: float) -> None:
    canvas.bone((0, y), (24, 18), 3)
    canvas.bone((0, y + 26), (20, 13), 4)
    canvas.bone((0, y + 40), (5, 12), 2)
    canvas.bone((0, y + 24), (38, 5), 2)
    canvas.paint("fluid", canvas.ellipse((0, y + 24), (9, 8)))


def _lesions(canvas: Canvas, *, radius_mm: float, box: tuple[float, float, float]) -> None:
    """Paints one to three hot masses somewhere inside the box."""
    for _ in range(canvas.random.integers(1, 4)):
        center = canvas.random.uniform(-np.array(box), box)
        radii = canvas.random.uniform(0.6, 1.2, 3) * radius_mm
        canvas.paint("lesion", canvas.ellipse(tuple(center), tuple(radii), degrees=canvas.random.uniform(0, 180)))


ANATOMIES: dict[str, Callable[[Canvas], None]] = {"head": _head, "thorax": _thorax, "pelvis": _pelvis, "limb": _limb}

"""Reads the pixels of a DICOM series in physical units."""

from collections import defaultdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ImplicitVRLittleEndian, UID_dictionary

from medgan.data.dicom.code_stream import check_frames
from medgan.data.dicom.header import full_header
from medgan.data.dicom.irregular_stack import on_grid
from medgan.data.dicom.multiframe import frame_headers
from medgan.data.dicom.structure import check_structure, in_time
from medgan.data.dicom.suv import SuvFactor, suv_factor
from medgan.data.dicom.tolerance import damage_is, redacted
from medgan.data.plausibility import AIR_HU, PADDING_HU, Bounds, check_step, check_values, without_padding
from medgan.data.series import UNITS, Series
from medgan.data.unpack import opened, read_bytes
from medgan.data.volume import Volume
from medgan.errors import InputError

NEEDED = [Tag(keyword) for keyword in (
    "SpecificCharacterSet", "SOPClassUID", "Modality", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleIntercept", "RescaleSlope",
    "RescaleType",
    "PixelData", "FloatPixelData", "DoubleFloatPixelData", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "StudyDate", "StudyTime", "SeriesDate", "SeriesTime", "AcquisitionDate",
    "AcquisitionTime", "ContentTime", "FrameReferenceTime", "ActualFrameDuration",
)]  # fmt: skip
"""Of the first file everything is read, of the others only this; the rest is the same in all slices of a series."""
SLOPE, INTERCEPT, RESCALE_TYPE = Tag("RescaleSlope"), Tag("RescaleIntercept"), Tag("RescaleType")
HU_TYPES = ("HU", "US")  # Rescale Type (0028,1054); "US": unspecified
BACKGROUNDS = {"CT": AIR_HU}  # 0 in any other modality
PADDING = (Tag("PixelPaddingValue"), Tag("PixelPaddingRangeLimit"))


def read_dicom(series: Series, bounds: Bounds) -> Volume:
    """Returns the voxels of a series, see `medgan.data.reader.read_volume`."""
    affine = series.affine
    check_step(float(np.linalg.norm(affine[:3, 2])), series.thickness_mm, series.modality, bounds)
    with np.errstate(over="ignore", invalid="ignore"):  # the values are checked
        array, headers = _decoded(series)
        factor = _factor(array, headers, series.modality, bounds)
    check_values(array, series.modality, factor.made_of)
    if series.modality == "CT" and array.min() < PADDING_HU:
        array[array < PADDING_HU] = AIR_HU
    notes = [*series.notes, *factor.notes]
    if series.grid is not None:
        array = on_grid(array, series.grid, BACKGROUNDS.get(series.modality, 0.0))
        notes.append(f"{series.modality}: irregular slices resampled to {series.grid.shape[0]} regular ones")
    return Volume(array, affine, series.frame_of_reference, series.unit, tuple(notes), factor.made_of, series.head)


def slice_headers(series: Series) -> list[pydicom.Dataset]:
    """Returns the header of every slice without its pixels, see `medgan.data.reader.representative_headers`."""
    with damage_is(f"{series.modality}: the headers could not be read"):
        headers = {path: _headers(_header(path)) for path in dict.fromkeys(series.files)}
        return [headers[path][frame] for path, frame in zip(series.files, series.frames, strict=True)]


def _factor(array: np.ndarray, headers: list[pydicom.Dataset], modality: str, bounds: Bounds) -> SuvFactor:
    """Turns activity into SUV in place, and returns what the values are made of."""
    rescaling = f"Rescale Slope {float(headers[0].get('RescaleSlope') or 1):g}"
    if modality != "PT":
        return SuvFactor(1.0, f"{rescaling}, Rescale Intercept {float(headers[0].get('RescaleIntercept') or 0):g}")
    with damage_is("PT: the SUV could not be computed from the headers"):
        factor = suv_factor(headers, bounds)
    array *= np.float32(factor.factor)
    return SuvFactor(factor.factor, f"{factor.made_of}, {rescaling}", factor.notes)


def _header(path: Path) -> pydicom.Dataset:
    with opened(path) as file:
        return full_header(file)


def _headers(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    return frame_headers(dataset) if "PerFrameFunctionalGroupsSequence" in dataset else [dataset]


def _decoded(series: Series) -> tuple[np.ndarray, list[pydicom.Dataset]]:
    """Returns rescaled pixels, float32 (slices, rows, columns), and headers without pixels; reads each file once."""
    places: dict[Path, list[int]] = defaultdict(list)
    for number, path in enumerate(series.files):
        places[path].append(number)
    shape = (len(series.files), *series.planes[0].size)
    array: np.ndarray | None = None
    headers: dict[int, pydicom.Dataset] = {}
    for path, numbers in places.items():
        wanted = NEEDED if headers else None
        own, pixels = _pixels(path, wanted, series.modality, numbers[0], shape[1:])
        array = np.empty(shape, np.float32) if array is None else array  # not before a file proves its size
        for number in numbers:
            frame = series.frames[number]
            headers[number] = own[frame]
            array[number] = _rescaled(pixels[frame], own[frame], series.modality, number)
    assert array is not None, "a series has slices"
    return array, [headers[number] for number in range(len(series.files))]


def _pixels(
    path: Path, wanted: list[BaseTag] | None, modality: str, number: int, size: tuple[int, ...]
) -> tuple[list[pydicom.Dataset], np.ndarray]:
    """Returns the header of each frame in a file, without pixels, and the pixels as stored, (frames, rows, columns)."""
    with damage_is(f"{modality}: the DICOM file of slice {number} could not be read"):
        content = read_bytes(path)
        check_structure(content)
        with BytesIO(content) as file, in_time():  # pydicom reads in small pieces: a fifth faster than from disk
            dataset = pydicom.dcmread(file, force=True, specific_tags=wanted)
        if "TransferSyntaxUID" not in dataset.file_meta:  # without the preamble; PS3.10 then has this syntax
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        syntax = dataset.file_meta.TransferSyntaxUID
        name = UID(syntax).name if syntax in UID_dictionary else "a private one"
    with damage_is(f"{modality}: the pixels of slice {number}, in the transfer syntax {name}, could not be decoded"):
        check_frames(dataset, size, modality, number)
        pixels = dataset.pixel_array.reshape(-1, *size)
        for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
            dataset.pop(keyword, None)
        return _headers(dataset), pixels


def _rescaled(pixels: np.ndarray, header: pydicom.Dataset, modality: str, number: int) -> np.ndarray:
    """Returns one slice in the modality's unit, with the background in place of padding."""
    with damage_is(f"{modality}: Rescale Slope or Rescale Intercept of slice {number} could not be read as a number"):
        slope, intercept = _value(header, SLOPE), _value(header, INTERCEPT)
        _refuse_no_rescaling(slope, intercept, str(_value(header, RESCALE_TYPE) or "HU"), modality, number)
        scale, offset = np.float32(float(1.0 if slope is None else slope)), np.float32(float(intercept or 0.0))
        padding = _padding(pixels, header)
    values = pixels.astype(np.float32) * scale + offset
    return values if padding is None else without_padding(values, padding, BACKGROUNDS.get(modality, 0.0))


def _refuse_no_rescaling(slope: Any, intercept: Any, kind: str, modality: str, number: int) -> None:
    """Raises InputError where the values are in no unit; a PET's intercept is always 0 (C.8.9.4.1.1)."""
    missing = "Slope" if slope is None else "Intercept" if intercept is None and modality != "PT" else ""
    if missing and modality in UNITS:
        raise InputError("E-READ-05", modality=modality, number=number, name=missing, units=UNITS[modality])
    if modality == "CT" and kind not in HU_TYPES:
        raise InputError("E-READ-07", modality=modality, number=number, kind=redacted(kind))


def _value(header: pydicom.Dataset, tag: BaseTag) -> Any:
    """Returns the value of an attribute; None for a missing or empty one. By tag: a keyword must be looked up first."""
    value = header[tag].value if tag in header else None
    return None if value == "" else value


def _padding(pixels: np.ndarray, header: pydicom.Dataset) -> np.ndarray | None:
    """Returns which pixels are padding by Pixel Padding Value and Range Limit (C.7.5.1.1.2), or None without these."""
    values = [_value(header, tag) for tag in PADDING]
    ends = [_stored(value, pixels) for value in values if value is not None]
    if not ends:
        return None
    return (pixels >= min(ends)) & (pixels <= max(ends))


def _stored(value: object, pixels: np.ndarray) -> int:
    """Returns a padding value as the pixels' type holds it: exports give it signed for unsigned pixels, or reversed."""
    number = int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(str(value))
    if pixels.dtype.kind not in "iu":
        return number
    bits = 8 * pixels.itemsize
    return int(np.array(number & (1 << bits) - 1, f"u{pixels.itemsize}").view(pixels.dtype))

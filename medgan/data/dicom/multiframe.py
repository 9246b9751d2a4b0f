"""Converts a multi-frame header to a classic header for each frame (PS3.3 C.7.6.16, Functional Groups)."""

from collections.abc import Callable, Sequence

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

from medgan.errors import InputError

MOST_FRAMES = 20_000
MOST_ELEMENTS = 3_000_000  # of all frames' headers together
LEAST_COMPRESSED_BITS = 64  # of a frame: the tag and length of its fragment
MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameContentSequence",
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)
"""Their attributes become the frame's own; the last two hold what a legacy conversion found no other place for."""
CORRECTIONS = {
    "DecayCorrected": "DECY",
    "AttenuationCorrected": "ATTN",
    "ScatterCorrected": "SCAT",
    "DeadTimeCorrected": "DTIM",
    "RandomsCorrected": "RAN",
}
UNITS = {"Bq/ml": "BQML", "{SUVbw}g/ml": "GML", "g/ml{SUVbw}": "GML", "126401": "GML", "{counts}": "CNTS"}
"""This maps the Measurement Units Code (UCUM or DCM) to Units (0054,1001)."""


def check_num_frames(dataset: Dataset, file_size: Callable[[], int]) -> None:
    """Refuses more frames than an image has, or than the file has pixels for: each costs time before it is decoded.

    Args:
        file_size: returns the size of the file in bytes; it is called for several frames only, as it may take long.

    Raises:
        InputError: there are too many frames.
    """
    num_frames = int(dataset.get("NumberOfFrames") or 1)
    if num_frames <= 1:
        return
    if num_frames > MOST_FRAMES:
        raise InputError("E-FRAMES-02", num_frames=num_frames, most=MOST_FRAMES)
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    bits = LEAST_COMPRESSED_BITS
    if syntax is None or not syntax.is_compressed:
        bits = int(dataset.get("Rows") or 0) * int(dataset.get("Columns") or 0) * int(dataset.get("BitsAllocated") or 1)
        bits = max(8, bits)
    if num_frames * bits > 8 * (file_bytes := file_size()):
        raise InputError("E-FRAMES-03", num_frames=num_frames, needed=num_frames * bits // 8, file_bytes=file_bytes)


def frame_headers(dataset: Dataset) -> list[Dataset]:
    """Returns the header that each frame would have in a classic, single-frame file: without pixels, in frame order.

    Shared and per-frame attributes are on the top level. An enhanced PET file gives units and corrections in other
    attributes; they are converted to `Units`, `CorrectedImage` and `DecayCorrection` (C.8.22, C.7.6.16.2.11).
    `ReferencedFrameNumber` is the frame's own number, which an image derived from it refers to.

    Args:
        dataset: an enhanced or legacy converted enhanced CT, MR or PET image; its pixels are not needed.

    Raises:
        InputError: the number of functional groups is not the number of frames, or they have too many elements.
    """
    num_frames = int(dataset.get("NumberOfFrames") or 0)
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if not groups or len(groups) != num_frames:
        raise InputError("E-FRAMES-01", num_groups=len(groups), num_frames=num_frames)
    common = Dataset()
    common.update({element.tag: element for element in dataset if _belongs_to_every_frame(element.tag)})
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    _refuse_many(num_frames, common, shared)
    return [_frame_header(common, shared, own, number) for number, own in enumerate(groups, start=1)]


def _refuse_many(num_frames: int, common: Dataset, shared: Dataset) -> None:
    """Refuses frames whose headers would be too large together: each gets what the file holds once."""
    num_elements = len(common) + sum(len(item) for macro in MACROS for item in (shared.get(macro) or [])[:1])
    if num_frames * num_elements > MOST_ELEMENTS:
        raise InputError("E-FRAMES-04", num_frames=num_frames, num_elements=num_elements, most=MOST_ELEMENTS)


def _belongs_to_every_frame(tag: int) -> bool:
    return tag >> 16 not in (0x5200, 0x7FE0)  # functional groups, pixels


def _frame_header(common: Dataset, shared: Dataset, own: Dataset, number: int) -> Dataset:
    header = Dataset()
    header.update(common)
    _put(header, ReferencedFrameNumber=number)
    for group in (shared, own):
        for macro in MACROS:
            for item in (group.get(macro) or [])[:1]:
                header.update(item)
    stamp = str(header.get("FrameAcquisitionDateTime") or "")
    if stamp:
        _put(header, AcquisitionDate=stamp[:8], AcquisitionTime=stamp[8:].split("+")[0].split("-")[0])
    if header.get("Modality") == "PT":
        _add_units(header, [own, shared])
        _add_corrections(header)
    return header


def _add_units(header: Dataset, groups: Sequence[Dataset]) -> None:
    mapping = next((item for group in groups for item in group.get("RealWorldValueMappingSequence") or []), None)
    units = _units(mapping)
    if mapping is not None and units:
        _put(header, Units=units)
        if "RealWorldValueSlope" in mapping:
            intercept = float(mapping.get("RealWorldValueIntercept") or 0.0)
            _put(header, RescaleSlope=float(mapping.RealWorldValueSlope), RescaleIntercept=intercept)


def _add_corrections(header: Dataset) -> None:
    answers = {name: str(header.get(keyword) or "") for keyword, name in CORRECTIONS.items()}
    if not header.get("CorrectedImage") and any(answers.values()):
        _put(header, CorrectedImage=[name for name, answer in answers.items() if answer == "YES"] or ["NONE"])
    if not header.get("DecayCorrection") and answers["DECY"]:
        _put(header, DecayCorrection="START" if answers["DECY"] == "YES" else "NONE")


def _put(header: Dataset, **values: object) -> None:
    """Sets attributes of this frame alone; an assignment would change the element that all frames share."""
    for keyword, value in values.items():
        header.add_new(keyword, dictionary_VR(keyword), value)


def _units(mapping: Dataset | None) -> str:
    """Returns Units (0054,1001) of a Real World Value Mapping, or nothing if they are unknown."""
    codes = (mapping.get("MeasurementUnitsCodeSequence") or []) if mapping is not None else []
    return UNITS.get(str(codes[0].get("CodeValue") or ""), "") if codes else ""

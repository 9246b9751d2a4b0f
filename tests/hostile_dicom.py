"""Makes DICOM files that cost their reader time or memory, or end its process."""

import io
import random
import struct
import zlib
from pathlib import Path

import gdcm
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
ITEMS_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
OPEN = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
OPEN_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
PIXELS = b"\xe0\x7f\x10\x00"
SYNTAXES = {
    "jpeg": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "jpegls": gdcm.TransferSyntax.JPEGLSLossless,
    "j2k": gdcm.TransferSyntax.JPEG2000Lossless,
    "rle": gdcm.TransferSyntax.RLELossless,
}
CRASHES = sorted((Path(__file__).parent / "crash_frames").iterdir())
"""Each is a frame on which a decoder ended its process; the name says the syntax and the signal."""


def recode(path: Path, syntax: int) -> None:
    """Writes a file again in another transfer syntax (`gdcm.TransferSyntax`)."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def inserted(content: bytes, extra: bytes) -> bytes:
    """Puts elements in front of the pixels of an explicit little endian file."""
    place = content.index(PIXELS)
    return content[:place] + extra + content[place:]


def begun_with(content: bytes, extra: bytes) -> bytes:
    """Puts elements in front of all others."""
    place = end_of_meta(content)
    return content[:place] + extra + content[place:]


def end_of_meta(content: bytes) -> int:
    """Where the File Meta Information ends."""
    return 144 + int(struct.unpack_from("<I", content, 140)[0])


def element(tag: int, kind: bytes, value: bytes) -> bytes:
    """An element whose length takes four bytes (OB, UN, SQ)."""
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, kind, 0, len(value)) + value


def empty_items(number: int) -> bytes:
    """A sequence of empty items."""
    return OPEN + ITEM * number + ITEMS_END


def nested(depth: int) -> bytes:
    """Sequences in each other, none of which ends."""
    return (OPEN + OPEN_ITEM) * depth


def deflated(content: bytes, extra_mb: int = 0) -> bytes:
    """The same elements in the deflated transfer syntax, with a padding element behind them."""
    dataset = pydicom.dcmread(io.BytesIO(content[: end_of_meta(content)]))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    start = _saved(dataset)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    inside = deflate.compress(content[end_of_meta(content) :])
    if extra_mb:
        inside += deflate.compress(struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, extra_mb << 20))
    for _ in range(extra_mb):
        inside += deflate.compress(bytes(1 << 20))
    return start[: end_of_meta(start)] + inside + deflate.flush()


def _saved(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def frame_of(path: Path) -> bytes:
    """The compressed frame of a file."""
    return next(generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1))


def put_frame(path: Path, frame: bytes, syntax: str | None = None) -> None:
    """Replaces the pixels of a file by a compressed frame."""
    dataset = pydicom.dcmread(path)
    if syntax is not None:
        dataset.file_meta.TransferSyntaxUID = UID(gdcm.TransferSyntax(SYNTAXES[syntax]).GetString())
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    path.write_bytes(_saved(dataset))


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Changes some bytes, more of them near the beginning, and cuts one content in five."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        place = chance.randrange(min(len(changed), chance.choice([40, 120, 800, len(changed)])))
        changed[place] = chance.choice([0, 255, 127, 128, chance.randrange(256)])
    if chance.random() < 0.2:
        del changed[chance.randrange(2, len(changed)) :]
    return bytes(changed)

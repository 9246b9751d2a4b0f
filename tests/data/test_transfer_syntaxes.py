import gdcm
import numpy as np
import pytest
from hostile_dicom import recode
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from refusal import refusal

from medgan.data.reader import find_series, read_volume
from medgan.errors import InputError

pytestmark = pytest.mark.unit

SYNTAXES = {
    ImplicitVRLittleEndian: gdcm.TransferSyntax.ImplicitVRLittleEndian,
    ExplicitVRLittleEndian: gdcm.TransferSyntax.ExplicitVRLittleEndian,
    ExplicitVRBigEndian: gdcm.TransferSyntax.ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian: gdcm.TransferSyntax.DeflatedExplicitVRLittleEndian,
    RLELossless: gdcm.TransferSyntax.RLELossless,
    JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
    JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
    JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
}


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_read_volume_is_same_in_every_lossless_transfer_syntax(make_series, tmp_path, syntax, modality):
    pixels = np.random.default_rng(0).integers(-900, 1500, (17, 12), dtype=np.int16)  # signed, of odd sizes
    folder = make_series(tmp_path, modality=modality, pixels=pixels, RescaleSlope=1, RescaleIntercept=0)
    (series,) = find_series(folder)
    before = read_volume(series)
    for path in series.files:
        recode(path, SYNTAXES[syntax])
        assert dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax
    (again,) = find_series(folder)
    after = read_volume(again)
    np.testing.assert_array_equal(after.array, before.array)
    np.testing.assert_array_equal(after.affine, before.affine)


@pytest.mark.parametrize("syntax", [b"1.2.826.0.1.3680043", b"1.2.840.10008.9.9.9"])
def test_read_volume_refusal_does_not_repeat_private_transfer_syntax(make_series, tmp_path, syntax):
    (series,) = find_series(make_series(tmp_path))
    content = series.files[0].read_bytes()
    series.files[0].write_bytes(content.replace(b"1.2.840.10008.1.2.1", syntax))
    with pytest.raises(InputError, check=refusal("E-HEADER-01")) as caught:
        read_volume(series)
    assert "the pixels of slice 0, in the transfer syntax a private one" in str(caught.value)
    assert syntax.decode() not in str(caught.value)


def test_read_volume_refusal_names_syntax_of_undecodable_pixels(make_series, tmp_path):
    (series,) = find_series(make_series(tmp_path))
    header = dcmread(series.files[0])
    header.PixelData = encapsulate([b"no image"])
    header["PixelData"].is_undefined_length = True
    header.file_meta.TransferSyntaxUID = JPEG2000
    header.save_as(series.files[0])
    with pytest.raises(InputError, check=refusal("E-HEADER-01")) as caught:
        read_volume(series)
    assert "slice 0, in the transfer syntax JPEG 2000 Image Compression" in str(caught.value)

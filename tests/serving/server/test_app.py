"""The HTTP interface answers with a series, the model or its health, and requires the token."""

import numpy as np
import pydicom
import pytest

from medgan.errors import messages
from medgan.inference.dicom_folder import translate_folder

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("kind", ["zip", "multipart"])
def test_translate_request_gives_same_voxels_as_translate_folder(
    start, served, pet_folder, tmp_path, kind, zip_of, files_of, unzipped
):
    client = start()
    if kind == "zip":
        response = client.post(zip_of(pet_folder))
    else:
        response = client.post(content_type=None, files=files_of(pet_folder))
    assert response.status_code == 200, response.text
    assert response.headers["Medgan-Model-Version"] == "7" and response.headers["Content-Type"] == "application/zip"
    translate_folder(
        served.network.translator, pet_folder, tmp_path / "out", facts=served.facts, progress=lambda _: None
    )
    expected = [pydicom.dcmread(path) for path in sorted((tmp_path / "out").iterdir())]
    got = unzipped(response)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.pixel_array, other.pixel_array)
        assert (one.RescaleSlope, one.RescaleIntercept) == (other.RescaleSlope, other.RescaleIntercept)
        assert one.ContributingEquipmentSequence == other.ContributingEquipmentSequence
        assert one.ImagePositionPatient == other.ImagePositionPatient and one.SyntheticData == "YES"


def test_health_needs_no_token_and_model_does(start):
    client = start()
    health = client.get("/health", headers={})
    assert health.json() == {"status": "serving", "model": "medgan-pet2ct", "version": "7", "problem": ""}
    assert client.get("/model", headers={}).status_code == 401
    model = client.get("/model").json()
    assert (model["task"], model["version"], model["card"]) == ("pet2ct", "7", "# A model")
    assert model["target"] == {"modality": "CT", "unit": "HU"} and model["intended_use"] == "research only"


@pytest.mark.parametrize("header", ["", "Bearer another-token-of-the-tests", "Basic a-token-of-the-tests-alone"])
def test_translate_request_without_token_is_refused(start, pet_folder, header, zip_of):
    client = start()
    client.headers = {"Authorization": header}
    response = client.post(zip_of(pet_folder))
    assert response.status_code == 401 and response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json() == {"detail": messages()["E-SERVER-01"], "code": "E-SERVER-01"}

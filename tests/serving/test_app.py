"""The HTTP interface on a real port, around a small model: what comes back, what is refused, what is left behind."""

import hashlib
import io
import re
import shutil
import socket
import threading
import time
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests
import uvicorn
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage, generate_uid
from torch import nn

from medgan.data.volume import Volume
from medgan.serving.answer import _without
from medgan.serving.app import build_app
from medgan.serving.folder import translate_folder
from medgan.serving.follow import Follower, Served
from medgan.serving.model import load_translator, read_manifest
from medgan.serving.modules import ModelFacts
from medgan.serving.requests import Limits

LIMIT_S = 30
TOKEN = "a-token-of-the-tests-alone"
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def affine():
    return np.array([[4.0, 0, 0, -30.5], [0, 5.0, 0, -40.25], [0, 0, 3.27, -881.3], [0, 0, 0, 1]])


class Client:
    """A server and its address."""

    def __init__(self, address, scratch, follower):
        self.address, self.scratch, self.follower = address, scratch, follower
        self.headers = {"Authorization": f"Bearer {TOKEN}"}

    def get(self, path, **options):
        return requests.get(self.address + path, timeout=LIMIT_S, **{"headers": self.headers, **options})

    def post(self, body=None, content_type="application/zip", **options):
        headers = {**self.headers, **({"Content-Type": content_type} if content_type else {})}
        return requests.post(self.address + "/translate", body, headers=headers, timeout=LIMIT_S, **options)

    @contextmanager
    def connected(self, body, length=None):
        """Sends a body that is said to have that length; at the end the client goes away."""
        host, port = self.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=LIMIT_S) as connection:
            head = (
                f"POST /translate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
                f"Content-Type: application/zip\r\nContent-Length: {length or len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body)
            yield

    def has_begun(self, num_requests):
        """Waits until so many requests are being worked on."""
        end = time.monotonic() + LIMIT_S
        while len(list(self.scratch.iterdir())) < num_requests and time.monotonic() < end:
            time.sleep(0.02)

    def left_behind(self):
        """What is in the scratch folder once nothing is worked on any more."""
        end = time.monotonic() + LIMIT_S
        while (left := list(self.scratch.iterdir())) and time.monotonic() < end:
            time.sleep(0.02)
        return left


@pytest.fixture
def served(model_folder):
    manifest = read_manifest(model_folder)
    facts = ModelFacts(name="medgan-pet2ct", version="7", digest=manifest.weights_sha256)
    return Served(translator=load_translator(model_folder), facts=facts, manifest=manifest, card="# A model")


@pytest.fixture
def start(served, tmp_path):
    """`start(limits, network=None)`: a server; at the end nothing may be left in its folder."""
    running = []

    def begin(limits=None, network=None):
        translator = replace(served.translator, network=network or served.translator.network)
        follower = Follower(lambda: "7", lambda _: replace(served, translator=translator), look_s=1000)
        scratch = tmp_path / f"scratch-{len(running)}"
        scratch.mkdir()
        listening = socket.create_server(("127.0.0.1", 0))
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        app = build_app(follower, limits=limits or Limits(), digest=digest, scratch=scratch)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        client = Client(f"http://127.0.0.1:{listening.getsockname()[1]}", scratch, follower)
        running.append((server, thread, follower, client))
        return client

    yield begin
    for server, thread, follower, client in running:
        left = client.left_behind()
        server.should_exit = True
        thread.join(LIMIT_S)
        follower.close()
        assert left == []


def zip_of(folder: Path) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*.dcm")):
            archive.write(path, path.relative_to(folder))
    return body.getvalue()


def files_of(folder: Path):
    return [("f", (path.name, path.read_bytes())) for path in sorted(folder.rglob("*.dcm"))]


def unzipped(response):
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        return [pydicom.dcmread(io.BytesIO(archive.read(name))) for name in sorted(archive.namelist())]


@pytest.mark.parametrize("way", ["zip", "multipart"])
def test_the_answer_has_the_voxels_that_translating_the_folder_gives(start, served, pet_folder, tmp_path, way):
    client = start()
    if way == "zip":
        response = client.post(zip_of(pet_folder))
    else:
        response = client.post(content_type=None, files=files_of(pet_folder))
    assert response.status_code == 200, response.text
    assert response.headers["Medgan-Model-Version"] == "7" and response.headers["Content-Type"] == "application/zip"
    translate_folder(served.translator, pet_folder, tmp_path / "out", facts=served.facts, progress=lambda _: None)
    expected = [pydicom.dcmread(path) for path in sorted((tmp_path / "out").iterdir())]
    got = unzipped(response)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.pixel_array, other.pixel_array)
        assert (one.RescaleSlope, one.RescaleIntercept) == (other.RescaleSlope, other.RescaleIntercept)
        assert one.ContributingEquipmentSequence == other.ContributingEquipmentSequence
        assert one.ImagePositionPatient == other.ImagePositionPatient and one.SyntheticData == "YES"


def test_health_is_open_and_the_model_is_not(start):
    client = start()
    health = client.get("/health", headers={})
    assert health.json() == {"status": "serving", "model": "medgan-pet2ct", "version": "7", "problem": ""}
    assert client.get("/model", headers={}).status_code == 401
    model = client.get("/model").json()
    assert (model["task"], model["version"], model["card"]) == ("pet2ct", "7", "# A model")
    assert model["target"] == {"modality": "CT", "unit": "HU"} and model["intended_use"] == "research only"


@pytest.mark.parametrize("header", ["", "Bearer another-token-of-the-tests", f"Basic {TOKEN}"])
def test_without_the_token_nothing_is_read(start, pet_folder, header):
    client = start()
    client.headers = {"Authorization": header}
    response = client.post(zip_of(pet_folder))
    assert response.status_code == 401 and response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json() == {"detail": "expected the header Authorization: Bearer TOKEN with the server's token"}


def changed(folder, **values):
    for path in folder.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        for keyword, value in values.items():
            setattr(header, keyword, value)
        header.save_as(path)


def two_patients(folder, put_series, volume):
    put_series(folder / "other", volume, PatientID="P2")


def two_series(folder, put_series, volume):
    put_series(folder / "other", volume)


def another_modality(folder, put_series, volume):
    changed(folder, Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")


def two_modalities(folder, put_series, volume):
    shutil.copytree(folder / "one", folder / "two")
    another_modality(folder / "two", put_series, volume)
    changed(folder / "two", SeriesInstanceUID=generate_uid())


def a_missing_slice(folder, put_series, volume):
    put_series(folder / "more", replace(volume, array=np.repeat(volume.array, 2, axis=0)))
    (folder / "more" / "3.dcm").unlink()
    shutil.rmtree(folder / "one")


def no_dicom(folder, put_series, volume):
    for path in folder.rglob("*.dcm"):
        path.write_text("not a picture")


def a_cut_header(folder, put_series, volume):
    path = folder / "one" / "2.dcm"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"General Hospital") + 5])


def a_damaged_header(folder, put_series, volume):
    path = folder / "one" / "2.dcm"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"ISO_IR 100") - 3])


def an_empty_file(folder, put_series, volume):
    (folder / "one" / "2.dcm").write_bytes(b"")


def a_series_without_positions(folder, put_series, volume):
    changed(folder, ImagePositionPatient=None)


def a_study_without_a_valid_name(folder, put_series, volume):
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        changed(folder, PatientID="P" * 70)
    finally:
        pydicom.config.settings.writing_validation_mode = None


def deflated(folder, put_series, volume):
    for path in folder.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        header.save_as(path)


@pytest.mark.parametrize(
    ("spoil", "status", "message"),
    [
        (two_patients, 422, "expected one PT series of one patient; found 6 PT slices in 2 series of 2 patients"),
        (two_series, 422, "expected one PT series of one patient; found 6 PT slices in 2 series"),
        (another_modality, 422, "expected one PT series of one patient; found 3 CT slices in 1 series"),
        (two_modalities, 422, "found 3 CT slices in 1 series, 3 PT slices in 1 series"),
        (a_missing_slice, 422, "PT: "),
        (no_dicom, 422, "expected the DICOM files of one PT series; found no DICOM image"),
        (a_cut_header, 422, "found one that cannot: PT: 1 of 1 slices has no Study Instance UID"),
        (a_damaged_header, 422, "found files besides: 1 with: no CT, MR or PET image"),
        (an_empty_file, 422, "expected nothing but whole slices of one PT series; found files besides: 1 with: empty"),
        (a_series_without_positions, 422, "3 of 3 slices have no Image Position (Patient)"),
        (a_study_without_a_valid_name, 422, "expected a valid PatientID to file the result under"),
        (deflated, 415, "expected DICOM in another transfer syntax than deflated"),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_what_is_not_one_whole_series_is_refused(start, pet_folder, put_series, volume, spoil, status, message):
    client = start()
    spoil(pet_folder, put_series, volume)
    response = client.post(zip_of(pet_folder))
    assert response.status_code == status and message in response.json()["detail"], response.text
    for secret in ("Eva", "P" * 70, "P1", "P2", str(client.scratch), volume.frame_of_reference):
        assert secret not in response.text


def test_what_a_zip_of_a_series_holds_besides_does_no_harm(start, pet_folder):
    client = start()
    header = pydicom.dcmread(pet_folder / "one" / "0.dcm")
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = MediaStorageDirectoryStorage
    header.save_as(pet_folder / "DICOMDIR.dcm")
    (pet_folder / "read me.dcm").write_text("no image")
    shutil.copy(pet_folder / "one" / "0.dcm", pet_folder / "copy.dcm")
    response = client.post(zip_of(pet_folder))
    assert response.status_code == 200 and len(unzipped(response)) == 3


@pytest.mark.parametrize(
    "message",
    ["of GRÜN^EVA", "of Grün", "of Eva", repr(["Grün^Eva"]), ascii("Grün^Eva"), r"of Gr\xfcn", r"of PET\\17", "17"],
)
def test_a_message_tells_no_part_of_a_name_however_it_is_written(message):
    told = _without(message, ["Grün^Eva", "PET\\17"])
    assert "(withheld)" in told and not {"grün", "eva", "17"} & set(re.findall(r"\w+", told.lower()))


def test_a_message_keeps_what_only_holds_a_name():
    assert _without("Evaluation of slice 117", ["Eva", "17", ""]) == "Evaluation of slice 117"


def test_an_empty_body_and_another_type_are_refused(start):
    client = start()
    assert client.post(b"").status_code == 400
    assert client.post(b"{}", "application/json").status_code == 415
    assert client.get("/translate").status_code == 405


def test_a_body_that_says_that_it_is_too_large_is_refused_before_it_comes(start, pet_folder):
    client = start(Limits(body_bytes=100))
    response = client.post(zip_of(pet_folder))
    assert response.status_code == 413 and "expected a body of at most 0 MiB" in response.json()["detail"]


def test_pixels_beyond_the_limit_are_refused_before_they_are_decoded(start, pet_folder):
    response = start(Limits(inflated_bytes=3 * 6 * 8 * 4 - 1)).post(content_type=None, files=files_of(pet_folder))
    assert response.status_code == 413 and "expected a series of at most 0 MiB of pixels" in response.json()["detail"]


def test_tiny_slices_that_become_large_on_the_grid_are_refused_before_they_are_decoded(start, put_series, tmp_path):
    tiny = Volume(np.zeros((40, 2, 2), np.float32), np.diag([2.0, 2.0, 3.0, 1.0]), generate_uid(), "SUV")
    put_series(tmp_path / "tiny", tiny)
    needed = 40 * 2 * 2 * 4 + 2 * 40 * 16 * 16 * 4
    body = {"content_type": None, "files": files_of(tmp_path / "tiny")}
    response = start(Limits(inflated_bytes=needed - 1)).post(**body)
    assert response.status_code == 413 and "those on the network's grid" in response.json()["detail"]
    assert start(Limits(inflated_bytes=needed)).post(**body).status_code != 413


class Gated(nn.Module):
    """Waits for its gate, but not for ever."""

    divisor = 8

    def __init__(self):
        super().__init__()
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def forward(self, source):
        self.entered.set()
        assert self.gate.wait(LIMIT_S)
        return source


@pytest.fixture
def gated(start):
    """`gated(limits)`: a server that has loaded a network which then waits."""

    def begin(limits):
        network = Gated()
        client = start(limits, network)
        network.gate.clear()
        network.entered.clear()
        return client, network

    return begin


def test_more_requests_than_there_are_places_are_sent_away_and_health_still_answers(gated, pet_folder):
    client, network = gated(Limits(requests=2))
    body, answers = zip_of(pet_folder), []
    threads = [threading.Thread(target=lambda: answers.append(client.post(body).status_code)) for _ in range(2)]
    for thread in threads:
        thread.start()
    client.has_begun(2)
    refused = client.post(body)
    assert refused.status_code == 503 and refused.headers["Retry-After"] == "10"
    assert refused.json() == {"detail": "2 requests are being worked on; try again in 10 s"}
    assert client.get("/health").status_code == 200
    network.gate.set()
    for thread in threads:
        thread.join(LIMIT_S)
    assert answers == [200, 200] and client.left_behind() == []
    assert client.post(body).status_code == 200


def test_a_request_that_takes_too_long_is_ended_and_the_next_one_is_served(gated, pet_folder):
    limits = Limits(request_s=0.5, requests=1)
    client, network = gated(limits)
    response = client.post(zip_of(pet_folder))
    assert response.status_code == 504
    assert response.json() == {"detail": "expected to be done within 0.5 s; it takes longer"}
    network.gate.set()
    assert client.left_behind() == []
    object.__setattr__(limits, "request_s", float(LIMIT_S))  # the next one must not fail for a slow machine
    assert client.post(zip_of(pet_folder)).status_code == 200


def test_a_client_that_goes_away_leaves_nothing(gated, pet_folder):
    client, network = gated(Limits(requests=1))
    with client.connected(zip_of(pet_folder)):
        assert network.entered.wait(LIMIT_S)
    network.gate.set()
    assert client.left_behind() == [] and client.post(zip_of(pet_folder)).status_code == 200


def test_a_body_that_breaks_off_leaves_nothing(start, pet_folder):
    client = start(Limits(requests=1))
    with client.connected(b"PK", length=9999):
        client.has_begun(1)
    assert client.left_behind() == [] and client.post(zip_of(pet_folder)).status_code == 200


class Failing(nn.Module):
    divisor = 8
    fails = False

    def forward(self, source):
        if self.fails:
            raise RuntimeError("what it says names Grün^Eva")
        return source


def test_a_defect_fails_one_request_by_its_kind_alone(start, pet_folder, caplog):
    network = Failing()
    client = start(network=network)
    network.fails = True
    response = client.post(zip_of(pet_folder))
    assert response.status_code == 500
    assert response.json() == {"detail": "failed with RuntimeError; the server's log says where"}
    assert "a request failed: RuntimeError at test_app.py" in caplog.text and "Eva" not in caplog.text
    network.fails = False
    assert client.post(zip_of(pet_folder)).status_code == 200


def test_a_request_is_served_wholly_by_the_version_that_began_it(gated, served, pet_folder):
    client, network = gated(Limits())
    answers = []
    thread = threading.Thread(target=lambda: answers.append(client.post(zip_of(pet_folder))))
    thread.start()
    assert network.entered.wait(LIMIT_S)
    client.follower.current = replace(served, facts=replace(served.facts, version="8"))
    network.gate.set()
    thread.join(LIMIT_S)
    answers.append(client.post(zip_of(pet_folder)))
    assert [answer.headers["Medgan-Model-Version"] for answer in answers] == ["7", "8"]
    for answer, version in zip(answers, "78", strict=True):
        assert {str(one.SoftwareVersions[1]) for one in unzipped(answer)} == {f"model {version}"}

"""Files as exports have them: packed, without the preamble, with an index, or with the wrong content."""

import gzip
import shutil
import zipfile

import pytest
from field_patients import hashed, patient, prepared, save
from pydicom.uid import MediaStorageDirectoryStorage
from refusal import refusal

from medgan.data.reader import find_series, read_volume, survey
from medgan.data.unpack import stored_in
from medgan.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """The images of one patient."""
    ct, pt = patient("P1")
    save(ct, tmp_path / "images" / "CT")
    save(pt, tmp_path / "images" / "PT")
    return tmp_path / "images"


def zipped(folder, name="P1.zip"):
    """Packs all files of a folder into a zip file there."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path in files:
            archive.write(path, path.relative_to(folder))
    for child in folder.iterdir():
        if child.is_dir():
            shutil.rmtree(child)


def gzipped(folder):
    for path in list(folder.rglob("*.dcm")):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def without_preamble(folder):
    for series, one in zip(("CT", "PT"), patient("P1"), strict=True):
        for number, dataset in enumerate(one):
            del dataset.file_meta
            dataset.save_as(folder / series / f"{number:04d}.dcm", implicit_vr=True, little_endian=True)


@pytest.mark.parametrize("pack", [zipped, gzipped, without_preamble])
def test_packed_files_and_files_without_preamble_are_read(folder, pack):
    expected = {one.modality: read_volume(one).array.tolist() for one in find_series(folder)}
    pack(folder)
    assert {one.modality: read_volume(one).array.tolist() for one in find_series(folder)} == expected


def test_data_set_of_a_zip_file_is_prepared_anew_only_where_the_file_changed(folder):
    zipped(folder)
    manifest, outcomes = prepared(folder)
    assert outcomes[hashed(folder, "P1")].reason == ""
    again, _ = prepared(folder)
    assert again == manifest
    (folder / "P1.zip").touch()
    changed, _ = prepared(folder)
    assert changed.inputs != manifest.inputs


@pytest.mark.parametrize(("pack", "count"), [(zipped, "1 file: 1"), (gzipped, "20 files: 20")])
def test_packed_files_are_left_where_the_caller_says_so(folder, pack, count):
    pack(folder)
    with pytest.raises(InputError, check=refusal("E-READ-02", reasons=f"{count} packed file")):
        survey(folder, packed="leave")


def test_damaged_and_encrypted_archives_are_counted(folder):
    (folder / "damaged.zip").write_bytes(b"PK\x03\x04 no archive")
    zipped(folder, "good.zip")
    content = bytearray((folder / "good.zip").read_bytes())
    for place in range(len(content) - 4):
        if content[place : place + 4] == b"PK\x01\x02":
            content[place + 8] |= 1  # the first file is encrypted, says the index
            break
    (folder / "good.zip").write_bytes(content)
    found = survey(folder)
    assert found.passed_over == {"damaged zip file": 1, "encrypted file in a zip file": 1}


@pytest.mark.parametrize("content", [gzip.compress(b"a" * 999)[:-8], gzip.compress(b"a" * 999)[:20] + b"x" * 30])
def test_damaged_gzip_file_is_counted(folder, content):
    (folder / "notes.txt.gz").write_bytes(content)
    found = survey(folder)
    assert (len(found.series), sum(found.passed_over.values())) == (2, 1)


def test_zip_member_with_unsafe_name_is_counted_and_not_read(folder, tmp_path):
    with zipfile.ZipFile(folder / "unsafe.zip", "w") as archive:
        archive.writestr("/etc/hostname", "text")
        archive.writestr("../images/CT/0000.dcm", "text")
    assert survey(folder).passed_over == {"unsafe name in a zip file": 2}


def test_index_of_a_medium_is_no_image(folder):
    ct, _ = patient("P1")
    index = ct[0]
    index.SOPClassUID = index.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    index.save_as(folder / "DICOMDIR", enforce_file_format=True)
    assert survey(folder).passed_over == {"index (DICOMDIR)": 1}


def test_member_of_a_zip_file_is_stored_in_it(folder, tmp_path):
    zipped(folder)
    assert stored_in(folder / "P1.zip" / "CT" / "0000.dcm") == folder / "P1.zip"
    assert stored_in(tmp_path / "a.zip" / "b") == tmp_path / "a.zip" / "b"

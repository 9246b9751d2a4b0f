"""Data sets at a URL, on a real S3 server that runs here."""

import json

import pytest
from moto.server import ThreadedMotoServer
from refusal import refusal

from medgan.data.dataset import PreparedDataset
from medgan.data.remote import fetched, publish
from medgan.errors import InputError, JobError
from medgan.paths import is_remote


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """An empty bucket on a server of its own, as the user's environment and `~/.aws` would name it."""
    import fsspec

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        patch.setenv(name, value)
    fsspec.filesystem("s3").mkdir("bucket")
    yield "s3://bucket"
    server.stop()
    patch.undo()


@pytest.fixture
def url(bucket, prepared, request):
    publish(prepared.folder, f"{bucket}/{request.node.name}")
    return f"{bucket}/{request.node.name}"


def storage(url):
    import fsspec

    files, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    files.invalidate_cache()
    return files, root


def test_a_url_is_told_from_a_path():
    assert is_remote("s3://bucket/set")
    assert not is_remote("/data/set")


def test_a_published_set_comes_back_whole_and_is_fetched_once(url, prepared, tmp_path):
    copy = PreparedDataset.open(fetched(url, tmp_path))
    assert copy.digest == prepared.digest
    for role in ("train", "validation", "test"):
        ours, theirs = copy.slices(role), prepared.slices(role)
        assert all((ours[index][0] == theirs[index][0]).all() for index in range(len(theirs)))
    files, root = storage(url)
    files.rm(f"{root}/patients", recursive=True)
    assert fetched(url, tmp_path) == copy.folder


def test_publishing_again_copies_no_patient_twice(url, prepared):
    files, root = storage(url)
    path = f"{root}/{prepared.manifest.patients[0].folder}/source.npy"
    before = files.info(path)["LastModified"]
    publish(prepared.folder, url)
    files, _ = storage(url)
    assert files.info(path)["LastModified"] == before


def test_an_upload_that_was_cut_off_is_sent_again(url, prepared, tmp_path):
    files, root = storage(url)
    path = f"{root}/{prepared.manifest.patients[0].folder}/source.npy"
    files.pipe_file(path, files.cat_file(path)[:-1])
    publish(prepared.folder, url)
    assert PreparedDataset.open(fetched(url, tmp_path)).digest == prepared.digest


def test_a_damaged_array_is_refused_and_not_kept(url, prepared, tmp_path):
    files, root = storage(url)
    path = f"{prepared.manifest.patients[0].folder}/source.npy"
    files.pipe_file(f"{root}/{path}", b"damaged")
    with pytest.raises(JobError, check=refusal("E-REMOTE-02")):
        fetched(url, tmp_path)
    assert not list(tmp_path.rglob("dataset.json"))
    assert not list(tmp_path.rglob(f"*{prepared.manifest.patients[0].folder}/source.npy"))


def test_a_set_that_names_files_outside_is_refused(url, tmp_path):
    files, root = storage(url)
    content = json.loads(files.cat_file(f"{root}/dataset.json"))
    content["patients"][0]["folder"] = "../../outside"
    files.pipe_file(f"{root}/dataset.json", json.dumps(content).encode())
    with pytest.raises(InputError, check=refusal("E-REMOTE-03")):
        fetched(url, tmp_path)


def test_a_place_without_a_data_set_is_refused(bucket, tmp_path):
    with pytest.raises(InputError, check=refusal("E-REMOTE-01", url="s3://bucket/nothing", file_name="dataset.json")):
        fetched(f"{bucket}/nothing", tmp_path)
    with pytest.raises(InputError, check=refusal("E-REMOTE-04", url="nosuch://a/b")):
        fetched("nosuch://a/b", tmp_path)

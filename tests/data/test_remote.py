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
    """An empty bucket on a test server; the environment names the server as it would for a user."""
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


def test_is_remote_tells_url_from_path():
    assert is_remote("s3://bucket/set")
    assert not is_remote("/data/set")


def test_published_data_set_is_fetched_whole_and_only_once(url, prepared, tmp_path):
    copy = PreparedDataset.open(fetched(url, tmp_path))
    assert copy.digest == prepared.digest
    for role in ("train", "validation", "test"):
        ours, theirs = copy.slices(role), prepared.slices(role)
        assert all((ours[index][0] == theirs[index][0]).all() for index in range(len(theirs)))
    files, root = storage(url)
    files.rm(f"{root}/patients", recursive=True)
    assert fetched(url, tmp_path) == copy.folder


def test_publish_again_uploads_no_patient_twice(url, prepared):
    files, root = storage(url)
    path = f"{root}/{prepared.manifest.patients[0].folder}/source.npy"
    before = files.info(path)["LastModified"]
    publish(prepared.folder, url)
    files, _ = storage(url)
    assert files.info(path)["LastModified"] == before


def test_publish_uploads_truncated_file_again(url, prepared, tmp_path):
    files, root = storage(url)
    path = f"{root}/{prepared.manifest.patients[0].folder}/source.npy"
    files.pipe_file(path, files.cat_file(path)[:-1])
    publish(prepared.folder, url)
    assert PreparedDataset.open(fetched(url, tmp_path)).digest == prepared.digest


def test_fetched_refuses_damaged_array_and_keeps_no_copy(url, prepared, tmp_path):
    files, root = storage(url)
    path = f"{prepared.manifest.patients[0].folder}/source.npy"
    files.pipe_file(f"{root}/{path}", b"damaged")
    digest = prepared.manifest.patients[0].sha256["source.npy"]
    with pytest.raises(JobError, check=refusal("E-REMOTE-02", source=f"{root}/{path}", digest=digest)):
        fetched(url, tmp_path)
    assert not list(tmp_path.rglob("dataset.json"))
    assert not list(tmp_path.rglob(f"*{prepared.manifest.patients[0].folder}/source.npy"))


def test_fetched_refuses_data_set_that_names_files_outside(url, tmp_path):
    files, root = storage(url)
    content = json.loads(files.cat_file(f"{root}/dataset.json"))
    content["patients"][0]["folder"] = "../../outside"
    files.pipe_file(f"{root}/dataset.json", json.dumps(content).encode())
    with pytest.raises(InputError, check=refusal("E-REMOTE-03", url=url)):
        fetched(url, tmp_path)


def test_fetched_refuses_url_without_data_set(bucket, tmp_path):
    with pytest.raises(InputError, check=refusal("E-REMOTE-01", url="s3://bucket/nothing", file_name="dataset.json")):
        fetched(f"{bucket}/nothing", tmp_path)
    with pytest.raises(InputError, check=refusal("E-REMOTE-04", url="nosuch://a/b"), match="Protocol not known"):
        fetched("nosuch://a/b", tmp_path)

"""The bearer token is made once, and only its owner may read its file."""

import hashlib

import pytest
from refusal import refusal

from medgan.errors import InputError
from medgan.server.auth import is_authorized, token_digest

pytestmark = pytest.mark.unit


def test_token_digest_makes_token_once_for_owner_only(tmp_path):
    file = tmp_path / "new" / "serve.token"
    digest = token_digest(file)
    assert token_digest(file) == digest == hashlib.sha256(file.read_bytes().strip()).hexdigest()
    assert file.stat().st_mode & 0o777 == 0o600 and len(file.read_text().strip()) >= 40


def test_is_authorized_accepts_only_bearer_token(tmp_path):
    digest, token = token_digest(tmp_path / "t"), (tmp_path / "t").read_text().strip()
    assert is_authorized(f"Bearer {token}", digest) and is_authorized(f"bearer  {token}", digest)
    for header in ("", token, f"Basic {token}", f"Bearer {token[:-1]}", f"Bearer {digest}", "Bearer", "Bearer é"):
        assert not is_authorized(header, digest), header


@pytest.mark.parametrize(
    "content", [b"", b"short\n", b"two words of some length\n", "ünïcödé-of-some-length\n".encode()]
)
def test_token_digest_refuses_file_without_token(tmp_path, content):
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_bytes(content)
    with pytest.raises(InputError, check=refusal("E-AUTH-03", file=file, shortest=20)):
        token_digest(file)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_token_digest_refuses_file_open_to_other_users(tmp_path, mode):
    file = tmp_path / "token"
    token_digest(file)
    file.chmod(mode)
    with pytest.raises(InputError, check=refusal("E-AUTH-02", file=file, mode=mode)):
        token_digest(file)


def test_token_digest_refuses_folder(tmp_path):
    with pytest.raises(InputError, check=refusal("E-AUTH-01", file=tmp_path)):
        token_digest(tmp_path)

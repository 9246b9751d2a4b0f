"""What every command does with errors and files: one line, an exit code, and files for their owner only."""

import errno

import pytest

from medgan.cli.main import run
from medgan.errors import InputError, JobError

pytestmark = pytest.mark.unit


def raising(error):
    def command():
        raise error

    return command


KEPT = "What was finished before is kept."


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("E-CHILD-03", limit_s=4), 2, "error: reading it took longer than 4 s, the limit. [E-CHILD-03]"),
        (JobError("E-CHILD-03", limit_s=4), 1, "failed: reading it took longer than 4 s, the limit. [E-CHILD-03]"),
        (OSError(errno.ENOSPC, "No space left"), 1, f"failed: No space left. {KEPT}"),
        (OSError(errno.EROFS, "Read-only file system", "/a/b"), 1, f"failed: /a/b: Read-only file system. {KEPT}"),
    ],
)
def test_error_is_one_line_and_an_exit_code(capsys, error, code, line):
    with pytest.raises(SystemExit) as ended:
        run(raising(error))
    assert (ended.value.code, capsys.readouterr()) == (code, ("", f"{line}\n"))


def test_defect_is_shown_whole():
    with pytest.raises(OSError, match="Bad file descriptor"):
        run(raising(OSError(errno.EBADF, "Bad file descriptor")))


def test_files_of_a_command_are_for_their_owner_only(tmp_path):
    run(lambda: (tmp_path / "folder").mkdir() or (tmp_path / "folder" / "file").write_text(""))
    for path in (tmp_path / "folder", tmp_path / "folder" / "file"):
        assert path.stat().st_mode & 0o077 == 0

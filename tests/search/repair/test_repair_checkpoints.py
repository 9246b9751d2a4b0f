"""The doctor on checkpoints that are missing, left over or half written."""

from medgan.search.repair import examine, repair
from medgan.training.checkpoint import BEST, LAST


def test_repair_cannot_restore_missing_generator_of_best_trial(there, said_by):
    (there.folder(0) / BEST).unlink()
    assert said_by(examine, there) == (
        1,
        ["trial 0: the best, should have best.safetensors but has none; cannot be mended"],
    )
    assert said_by(repair, there)[0] == 1


def test_repair_deletes_last_state_of_finished_trial(there, expect_mended, write):
    write(there.folder(1), LAST)
    expect_mended(there, "trial 1: has last.safetensors but is finished, should have none")
    assert not (there.folder(1) / LAST).exists()
    assert (there.folder(3) / LAST).exists()


def test_repair_deletes_folder_of_unknown_trial_only(there, expect_mended, write):
    write(there.folder(7), LAST)
    own = there.stores.checkpoints / "notes"
    write(own, BEST)
    expect_mended(there, "trial 7: has a checkpoint folder, the study no such trial")
    assert (there.folder(7).exists(), own.exists()) == (False, True)


def test_repair_deletes_incomplete_files(there, expect_mended):
    (there.folder(3) / "last.part").write_bytes(b"half")
    expect_mended(there, "checkpoints: 0003/last.part was never finished")
    assert not list(there.stores.checkpoints.rglob("*.part"))

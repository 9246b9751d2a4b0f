"""The repair of checkpoints that are missing, superfluous or incomplete."""

from medgan.search.repair import examine, repair
from medgan.training.checkpoint import BEST, LAST


def test_repair_cannot_restore_missing_generator_of_best_trial(stored, lines_of):
    (stored.folder(0) / BEST).unlink()
    assert lines_of(examine, stored) == (
        1,
        ["trial 0: the best, should have best.safetensors but has none; cannot be repaired"],
    )
    assert lines_of(repair, stored)[0] == 1


def test_repair_deletes_last_state_of_finished_trial(stored, expect_repaired, write):
    write(stored.folder(1), LAST)
    expect_repaired(stored, "trial 1: has last.safetensors but is finished, should have none")
    assert not (stored.folder(1) / LAST).exists()
    assert (stored.folder(3) / LAST).exists()


def test_repair_deletes_folder_of_unknown_trial_only(stored, expect_repaired, write):
    write(stored.folder(7), LAST)
    own = stored.stores.checkpoints / "notes"
    write(own, BEST)
    expect_repaired(stored, "trial 7: has a checkpoint folder, but the study has no such trial")
    assert (stored.folder(7).exists(), own.exists()) == (False, True)


def test_repair_deletes_incomplete_files(stored, expect_repaired):
    (stored.folder(3) / "last.part").write_bytes(b"half")
    expect_repaired(stored, "checkpoints: 0003/last.part was never finished")
    assert not list(stored.stores.checkpoints.rglob("*.part"))

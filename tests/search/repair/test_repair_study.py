"""The repair of a study as a whole: in order, broken in many ways, held by a driver, or refused."""

import os
import subprocess
import sys

import optuna
import pytest
from refusal import refusal
from sqlalchemy import create_engine

from medgan.errors import InputError
from medgan.paths import find_place
from medgan.search.consistency import open_stores
from medgan.search.lease import LEASES, is_expired, leased
from medgan.search.repair import examine, repair
from medgan.search.study import state_of
from medgan.tracking.store import STATE_TAG
from medgan.training.checkpoint import BEST, LAST


def test_repair_reports_nothing_when_stores_agree(stored, lines_of):
    assert lines_of(examine, stored) == (0, [])
    assert lines_of(repair, stored) == (0, [])


def test_repair_repairs_many_disagreements_at_once(stored, expect_repaired, open_runs, write):
    stored.study.ask(stored.space)
    stored.study.enqueue_trial({}, user_attrs={"root": 3, "retry_of": 3})
    stored.client.delete_run(stored.run(2).run_id)
    with open_runs(stored.place, stored.study) as tracking:
        tracking.trial(3)
        tracking.trial(12)
    write(stored.folder(12), LAST, BEST)
    write(stored.folder(2), LAST)
    expect_repaired(
        stored, "trial 3: attempt 4 runs", "trial 2: diverged in the study", "trial 12: MLflow", "trial 12: has"
    )


def test_repair_releases_lease_of_dead_driver(stored, expect_repaired):
    die = "from medgan.search.lease import leased; import os, sys\nwith leased(sys.argv[1], 's'): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", die, stored.place.study_uri], timeout=120).returncode == 9
    assert is_expired(stored.place.study_uri, "s")
    expect_repaired(stored, "study: held by a driver that is dead, should be held by nobody")
    assert not is_expired(stored.place.study_uri, "s")
    with create_engine(stored.place.study_uri).connect() as connection:
        assert connection.execute(LEASES.select()).all() == []


def test_repair_is_refused_while_driver_runs_study(stored, lines_of):
    stored.study.ask(stored.space)
    (stored.folder(3) / "last.part").write_bytes(b"half")
    for first_attempt in (3, "study"):
        stored.client.update_run(stored.run(first_attempt).run_id, status="RUNNING")
    stored.client.set_tag(stored.run(3).run_id, STATE_TAG, "running")
    with leased(stored.place.study_uri, "s"):
        num_found, lines = lines_of(examine, stored)
        assert (num_found, len(lines)) == (0, 1)
        assert "study s is being run by process" in lines[0]
        with pytest.raises(InputError, check=refusal("E-LEASE-02", study="s"), match=f"process {os.getpid()} "):
            repair(stored.stores, print)
    assert state_of(stored.study.trials[4]) == "running"


def test_open_stores_refuses_unknown_study_and_names_known_studies(stored):
    with pytest.raises(InputError, check=refusal("E-STUDY-02", name="t", names="s")):
        open_stores("t", stored.place)


def test_open_stores_refuses_missing_stores_and_creates_none(stored, tmp_path):
    nowhere = find_place(tmp_path / "nowhere", tracking_uri=stored.place.tracking_uri)
    with pytest.raises(InputError, check=refusal("E-STUDY-01", uri=nowhere.study_uri)):
        open_stores("s", nowhere)
    untracked = find_place(stored.place.output, tracking_uri=f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(InputError, check=refusal("E-MLFLOW-07", uri=untracked.tracking_uri)):
        open_stores("s", untracked)
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def test_open_stores_refuses_study_of_other_program(stored):
    optuna.create_study(storage=stored.study._storage, study_name="foreign")
    with pytest.raises(InputError, check=refusal("E-REPAIR-01", name="foreign", key="key")):
        open_stores("foreign", stored.place)

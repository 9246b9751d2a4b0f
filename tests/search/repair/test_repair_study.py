"""The doctor on a study as a whole: sound, broken everywhere, held by a driver, or refused."""

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


def test_repair_reports_nothing_when_stores_agree(there, said_by):
    assert said_by(examine, there) == (0, [])
    assert said_by(repair, there) == (0, [])


def test_repair_repairs_many_disagreements_at_once(there, expect_mended, tracked, write):
    there.study.ask(there.space)
    there.study.enqueue_trial({}, user_attrs={"root": 3, "retry_of": 3})
    there.client.delete_run(there.run(2).run_id)
    with tracked(there.place, there.study) as tracking:
        tracking.trial(3)
        tracking.trial(12)
    write(there.folder(12), LAST, BEST)
    write(there.folder(2), LAST)
    expect_mended(
        there, "trial 3: attempt 4 runs", "trial 2: diverged in the study", "trial 12: MLflow", "trial 12: has"
    )


def test_repair_releases_lease_of_dead_driver(there, expect_mended):
    die = "from medgan.search.lease import leased; import os, sys\nwith leased(sys.argv[1], 's'): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", die, there.place.study_uri], timeout=120).returncode == 9
    assert is_expired(there.place.study_uri, "s")
    expect_mended(there, "study: held by a driver that is dead, should be held by nobody")
    assert not is_expired(there.place.study_uri, "s")
    with create_engine(there.place.study_uri).connect() as connection:
        assert connection.execute(LEASES.select()).all() == []


def test_repair_is_refused_while_driver_runs_study(there, said_by):
    there.study.ask(there.space)
    (there.folder(3) / "last.part").write_bytes(b"half")
    for first_attempt in (3, "study"):
        there.client.update_run(there.run(first_attempt).run_id, status="RUNNING")
    there.client.set_tag(there.run(3).run_id, STATE_TAG, "running")
    with leased(there.place.study_uri, "s"):
        num_found, lines = said_by(examine, there)
        assert (num_found, len(lines)) == (0, 1)
        assert "study s is being run by process" in lines[0]
        with pytest.raises(InputError, check=refusal("E-LEASE-02", study="s")):
            repair(there.stores, print)
    assert state_of(there.study.trials[4]) == "running"


def test_open_stores_refuses_unknown_study_and_names_known_studies(there):
    with pytest.raises(InputError, check=refusal("E-STUDY-02", name="t", names="s")):
        open_stores("t", there.place)


def test_open_stores_refuses_missing_stores_and_creates_none(there, tmp_path):
    nowhere = find_place(tmp_path / "nowhere", tracking_uri=there.place.tracking_uri)
    with pytest.raises(InputError, check=refusal("E-STUDY-01")):
        open_stores("s", nowhere)
    untracked = find_place(there.place.output, tracking_uri=f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(InputError, check=refusal("E-MLFLOW-07")):
        open_stores("s", untracked)
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def test_open_stores_refuses_study_of_other_program(there):
    optuna.create_study(storage=there.study._storage, study_name="foreign")
    with pytest.raises(InputError, check=refusal("E-REPAIR-01", name="foreign", key="key")):
        open_stores("foreign", there.place)

"""Makes studies in a real database, with trials as a search leaves them, and reads their reports."""

from html.parser import HTMLParser

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from medgan.report.study_report import write_report
from medgan.search.objectives import Goal
from medgan.search.study import Identity, open_study
from medgan.tasks import TASKS

LIMIT = "val/mae_hu <= 100"
MOVES = {
    "optim.generator_lr": FloatDistribution(1e-5, 1e-2, log=True),
    "generator.num_blocks": IntDistribution(1, 6),
    "discriminator.patch": CategoricalDistribution([16, 34, 70]),
}
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


class Page(HTMLParser):
    """Holds the cells of a page, and what a browser would load for it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.rows, self.ids, self.links, self.is_cell = [], [], [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.loads += [given[name] for name in ("src", "data", "srcset") if name in given]
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self.is_cell = True

    def handle_endtag(self, tag):
        self.is_cell = self.is_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.is_cell:
            self.rows[-1][-1] += data

    def attempt(self, number):
        """Returns the cells of an attempt, by column."""
        names = next(row for row in self.rows if row[:2] == ["number", "trial"])
        (cells,) = (row for row in self.rows if row and row[0] == str(number) and len(row) == len(names))
        return dict(zip(names, cells, strict=True))

    def fact(self, name):
        return next(row[1] for row in self.rows if row[:1] == [name])


@pytest.fixture
def make(tmp_path):
    """Makes a study in a real database."""

    def made(*goals, name="s"):
        goals = goals or (Goal("val/ssim", "max"),)
        identity = Identity("pet2ct", "a" * 64, "b" * 64)
        return open_study(f"sqlite:///{tmp_path / name}.db", name, identity, goals=goals, seed=0)

    return made


@pytest.fixture
def add():
    """Adds a trial as a search leaves it; the attributes are those of `medgan.search.searcher`."""

    def added(study, state, *values, params=None, moves=MOVES, excess=None, **attributes):
        number = len(study.get_trials(deepcopy=False))
        params = params or {
            "optim.generator_lr": 10.0 ** -(2 + number % 3),
            "generator.num_blocks": 1 + number % 6,
            "discriminator.patch": [16, 34, 70][number % 3],
        }
        rows = {str(epoch): [value * (1 - 0.1 / epoch) for value in values] for epoch in (1, 2)}
        rows["3"] = list(values)
        several = len(study.directions) > 1
        final = {} if state not in STATES or (several and state == "pruned") else {"values": list(values)}
        if state not in STATES:
            attributes = {"failure": state, **attributes}
        study.add_trial(
            create_trial(
                state=STATES.get(state, TrialState.FAIL),
                params=params,
                distributions={setting: (MOVES | moves)[setting] for setting in params},
                user_attrs={"device": "gpu", "device_s": 360.0, "epochs": rows if values else {}, **attributes},
                intermediate_values={} if several else {int(epoch): row[0] for epoch, row in rows.items() if row},
                constraints={} if excess is None else {LIMIT: excess},
                **final,
            )
        )
        return number

    return added


@pytest.fixture
def report(tmp_path):
    """Writes the report of a study; returns its text, its page and the folder of its pictures."""

    def written(study, **changes):
        folder = tmp_path / "report"
        given = {"checkpoints": tmp_path / "checkpoints", "task": TASKS["pet2ct"], **changes}
        path = write_report(study, folder, **given)
        assert path == folder / "report.html"
        text = path.read_text()
        return text, Page(text), folder

    return written


@pytest.fixture
def store(tmp_path):
    """Stores the pictures of a trial as its training leaves them."""

    def stored(first_attempt, *, level=0.0):
        folder = tmp_path / "checkpoints" / f"{first_attempt:04d}"
        folder.mkdir(parents=True)
        image = np.full((2, 16, 16), level, np.float32)
        titles = np.array(["patient 3f2a slice 4", "patient 77bc slice 9"])
        np.savez(folder / "pictures.npz", source=image, output=image, target=image, titles=titles)

    return stored

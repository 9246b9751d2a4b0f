"""The study's page in MLflow says what was found."""

import pytest

from medgan.report.chance import importances_text
from medgan.report.study_overview import Overview
from medgan.search.objectives import Goal
from medgan.workflows.conclusion import Outcome, describe_study


class FakeTracking:
    """Keeps the tags of a study's page."""

    def __init__(self):
        self.run, self.kept = self, {}

    def tags(self, values):
        self.kept |= values

    def link(self, text, *_, **__):
        return text

    def link_to_trials(self, text, *_, **__):
        return text


@pytest.mark.parametrize(("count", "said"), [(4, " None of the 3 settings can be told from chance."), (3, "")])
def test_page_of_study_says_how_many_settings_can_be_told_from_chance(make, add, count, said):
    study, tracking = make(), FakeTracking()
    for place in range(count):
        add(study, "complete", 0.5 + 0.1 * place)
    outcome = Outcome(1, "val/ssim", 0.8, {}, {}, {}, "source", "PT", 3, "medgan-pet2ct", "7", [], "")
    describe_study(tracking, outcome, Goal("val/ssim", "max"), importances_text(Overview.of(study)))
    first, *_ = tracking.kept["mlflow.note.content"].split("\n\n")
    assert first.startswith("Best: trial #1, val/ssim 0.8000 on validation patients.")
    assert first.endswith(f"(#/models/medgan-pet2ct/versions/7).{said}")

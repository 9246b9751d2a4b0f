"""Writes `report.html`, a study with its pictures in one file that loads nothing, and the pictures as PNG files."""

import tempfile
import zipfile
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

from medgan.data.atomic_write import write_atomically
from medgan.report.gradient_plot import draw_shares
from medgan.report.html_page import PAGE, embedded, section, table
from medgan.report.parameter_plots import draw_parallel, draw_slices_of
from medgan.report.plot_style import Drawing, png_of
from medgan.report.study_overview import Overview, number_text
from medgan.report.trial_plots import draw_curves, draw_front, draw_history, draw_importances
from medgan.report.trial_table import facts_of, trial_table
from medgan.search.study import Study
from medgan.search.trial import trial_folder
from medgan.tasks import Task
from medgan.tracking.slice_pictures import draw_slices
from medgan.training.checkpoint import PICTURES

FILE_NAME = "report.html"
DRAWN: dict[str, tuple[Callable[[Overview], Drawing], str, str]] = {
    "history": (
        draw_history,
        "History",
        "Every finished trial with the value of its best epoch. Filled: ran to its end; open circles: stopped early; "
        "triangles: a constraint is missed. Trials that failed have no value and stand at the foot; values far worse "
        "than all others are drawn at the edge.",
    ),
    "importances": (
        draw_importances,
        "Importances",
        "How much each setting has to do with being among the best tenth of the trials (PED-ANOVA), trials stopped "
        "early included. The dashed line is the floor, what chance alone gives: the values were shuffled among the "
        "trials 200 times, and in 95 % of these studies even the largest importance stayed below it. Grey bars do not "
        "pass the floor: these importances cannot be told from chance. The floor is approximate, because a search "
        "chooses later settings by earlier values; a floor above 1 is drawn at 1. Of 10 trials or fewer the best tenth "
        "is a single trial, and hardly any bar can pass; of fewer than about 50 trials a bar that passes is a hint, "
        "not a finding.",
    ),
    "parallel": (
        draw_parallel,
        "Settings side by side",
        "A line is a trial; the darker, the better its rank in the first goal; the best one is orange, infeasible ones "
        "are dotted. Lines below an axis belong to trials in which that setting did not move.",
    ),
    "slices": (draw_slices_of, "Setting by setting", "The first goal over the values of one setting at a time."),
    "front": (
        draw_front,
        "Pareto front",
        "Complete trials; no feasible one beats those of the front in every goal. Numbers are trials.",
    ),
    "curves": (
        draw_curves,
        "Learning curves",
        "The first goal on the validation patients after each epoch; the generator of the best epoch is kept.",
    ),
    "shares": (
        draw_shares,
        "Shares of the gradient",
        "How strongly each term of the loss acts on the generator of the best trial: the norm of the gradient of "
        "weight x term at the generator's output, divided by the sum of these norms over all terms, on the first batch "
        "of each epoch. The weight of a term below the dashed line hardly changes the training. Shares below 0.1 % are "
        "drawn at the foot.",
    ),
}
"""Maps the name of a picture's file to the function that draws it, its heading and its caption."""
SHOWN = ("best", "median", "worst")
"""Names the trials whose validation slices are displayed, and their pictures' files."""


def write_report(
    study: Study, folder: Path, *, checkpoints: Path, task: Task, facts: Mapping[str, str] | None = None
) -> Path:
    """Writes `report.html` about a study as it is now, and its pictures as PNG files beside it; returns the path.

    Args:
        study: a finished, running or empty study.
        folder: folder of the report, made if it does not exist; pictures of an earlier report are replaced.
        checkpoints: folder of the study's checkpoints, with the trials' own pictures.
        task: task of the study, for the units of these pictures.
        facts: name -> text of more facts for the head of the page; no paths.
    """
    overview = Overview.of(study)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*DRAWN, *SHOWN):
        (folder / f"{name}.png").unlink(missing_ok=True)
    sides = " to ".join(f"{side.modality} [{side.unit}]" for side in (task.source, task.target))
    given = [(escape(name), escape(fact)) for name, fact in {"Task": f"{task.name}, {sides}", **(facts or {})}.items()]
    sections = [table([], [*given, *facts_of(overview, study)])]
    for name, (draw, heading, caption) in DRAWN.items():
        if name != "front" or len(overview.goals) > 1:
            sections.append(_drawn(draw(overview), folder / f"{name}.png", heading=heading, caption=caption))
    sections.append(_validation_slices(overview, folder, checkpoints=checkpoints, task=task))
    explanation = (
        "A row is an attempt, numbered as in Optuna's database. An attempt that failed by no fault of its own was "
        "repeated; the trial, its checkpoints and its run are called by the number of the first attempt."
    )
    sections.append(section("All trials", explanation, trial_table(overview)))
    path = folder / FILE_NAME
    page = PAGE.format(title=escape(f"Study {study.study_name}"), body="\n".join(sections))
    write_atomically(path, page.encode())
    return path


def _drawn(drawing: Drawing, path: Path, *, heading: str, caption: str) -> str:
    """Returns a section with the picture, also written to a file, or with the reason why there is no picture."""
    if isinstance(drawing, str):
        return section(heading, escape(drawing))
    content = png_of(drawing)
    write_atomically(path, content)
    return section(heading, escape(caption), embedded(content, alternative=escape(heading)))


def _validation_slices(overview: Overview, folder: Path, *, checkpoints: Path, task: Task) -> str:
    """Returns a section with the validation slices of the best, the median and the worst trial that have pictures."""
    having = [one for one in overview.ranked if (trial_folder(checkpoints, one.first_attempt) / PICTURES).is_file()]
    chosen = {"best": having[:1], "worst": having[1:][-1:], "median": having[1:-1][(len(having) - 3) // 2 :][:1]}
    shown = []
    for name in SHOWN:
        for one in chosen[name]:
            goals = zip(overview.goals, one.values, strict=True)
            reached = ", ".join(f"{goal.metric} {number_text(value)}" for goal, value in goals)
            title = f"{name}: trial {one.first_attempt} ({reached}{'' if one.is_feasible else ', infeasible'})"
            arrays = trial_folder(checkpoints, one.first_attempt) / PICTURES
            shown.append(_panel(arrays, folder / f"{name}.png", title=title, task=task))
    caption = "Fixed slices of validation patients, each trial with the generator of its best epoch."
    return section("Best, median and worst", caption if shown else "No finished trial has pictures.", *shown)


def _panel(arrays: Path, path: Path, *, title: str, task: Task) -> str:
    try:
        with tempfile.TemporaryDirectory() as scratch:
            picture = Path(scratch) / path.name
            draw_slices(arrays, picture, title=title, source=task.source, target=task.target)
            content = picture.read_bytes()
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        return f"<p>{escape(title)}: its pictures cannot be read ({type(error).__name__}).</p>"
    write_atomically(path, content)
    return embedded(content, alternative=escape(title))

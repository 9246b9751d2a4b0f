"""Writes `promotion.html`: two models on the same test patients, and the result of the rules, in one file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from medgan.data.atomic_write import write_atomically
from medgan.metrics.validation_metrics import Patients, merit, overall_means, overall_spread, preference
from medgan.report.html_page import PAGE, embedded, section, table
from medgan.report.plot_style import BLUE, GREY, ORANGE, new_figure, png_of
from medgan.report.study_overview import number_text

FILE_NAME = "promotion.html"


@dataclass(frozen=True)
class Comparison:
    """Holds the content of the page.

    Attributes:
        facts: name -> text of a fact at the head of the page.
        reasons: results of the rules, a sentence each.
        primary: metric that decides.
        candidate: test patient -> metric -> value.
        champion: values for the same patients; None if there is no champion.
    """

    title: str
    facts: Mapping[str, str]
    reasons: Sequence[str]
    primary: str
    candidate: Patients
    champion: Patients | None

    @property
    def patients(self) -> list[str]:
        """Returns the patients by the candidate's primary metric, the best first."""
        return sorted(self.candidate, key=lambda patient: -merit(self.primary, self.candidate[patient][self.primary]))


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Writes `promotion.html` into a folder, which is made if it does not exist; returns the path of the file."""
    facts = [(escape(name), escape(fact)) for name, fact in comparison.facts.items()]
    rules = f"<ul>{''.join(f'<li>{escape(reason)}</li>' for reason in comparison.reasons)}</ul>"
    shown = ("patient", "candidate", "champion", "difference")
    sections = [
        table([], facts),
        section("Rules", "What was asked, and what came.", rules),
        section(
            "Patients",
            f"{escape(comparison.primary)}, a line a test patient.",
            _picture(comparison),
            table(shown, _patient_rows(comparison)),
        ),
        section(
            "Metrics",
            "Mean over the test patients, and spread (standard deviation) over them.",
            table(("metric", "candidate", "champion", "difference"), _metric_rows(comparison)),
        ),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    page = PAGE.format(title=escape(comparison.title), body="\n".join(sections))
    write_atomically(folder / FILE_NAME, page.encode())
    return folder / FILE_NAME


def _patient_rows(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    rows = []
    for patient in comparison.patients:
        ours = comparison.candidate[patient][comparison.primary]
        theirs = comparison.champion[patient][comparison.primary] if comparison.champion else None
        rows.append((escape(patient), number_text(ours), number_text(theirs), _difference(ours, theirs)))
    return rows


def _metric_rows(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    ours, our_spread = overall_means(comparison.candidate), overall_spread(comparison.candidate)
    theirs = overall_means(comparison.champion) if comparison.champion else {}
    their_spread = overall_spread(comparison.champion) if comparison.champion else {}
    rows = []
    for name, value in ours.items():
        before = theirs.get(name)
        rows.append(
            (
                f"{escape(name)} ({preference(name)})",
                f"{number_text(value)} &plusmn; {number_text(our_spread[name])}",
                "-" if before is None else f"{number_text(before)} &plusmn; {number_text(their_spread[name])}",
                _difference(value, before),
            )
        )
    return rows


def _difference(ours: float, theirs: float | None) -> str:
    return "-" if theirs is None else f"{ours - theirs:+.3g}"


def _picture(comparison: Comparison) -> str:
    patients = comparison.patients
    figure = new_figure(7, 0.34 * len(patients) + 1.1)
    axis, height = figure.subplots(), range(len(patients))
    ours = [comparison.candidate[patient][comparison.primary] for patient in patients]
    if comparison.champion:
        theirs = [comparison.champion[patient][comparison.primary] for patient in patients]
        axis.hlines(height, theirs, ours, color=GREY, linewidth=1.5)
        axis.plot(theirs, height, "o", color=ORANGE, label="champion")
    axis.plot(ours, height, "o", color=BLUE, label="candidate")
    axis.set_yticks(list(height), patients, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(f"{comparison.primary} ({preference(comparison.primary)})")
    axis.grid(axis="x", color="#e3e7eb")
    axis.legend(frameon=False, loc="best", fontsize=8)
    return embedded(png_of(figure), alternative=escape(f"{comparison.primary} of each test patient"))

"""Writes the words of a study's report: the facts at its head, and the table of all trials."""

from collections import Counter
from html import escape

from optuna.trial import FrozenTrial

from medgan.report.chance import importances_text, spread_text
from medgan.report.html_page import table, wide_table
from medgan.report.study_overview import (
    Overview,
    cost_hours,
    cost_unit,
    costs,
    epochs_of,
    in_order,
    measured,
    number_text,
    reason_of,
    short_names,
    values_of,
    violations,
)
from medgan.search.budget import ELAPSED_S
from medgan.search.study import Study, first_attempt_of, is_finished, state_of
from medgan.units import duration

ABSENT = "-"


def facts_of(overview: Overview, study: Study) -> list[tuple[str, str]]:
    """Returns names and facts, both HTML: goals, states, the best trial, what may be chance, the cost."""
    goals = [f"{goal.metric} ({'higher' if goal.mode == 'max' else 'lower'} is better)" for goal in overview.goals]
    facts = [("Goals" if len(goals) > 1 else "Goal", escape(", then ".join(goals)))]
    if overview.limits:
        facts.append(("Constraints" if len(overview.limits) > 1 else "Constraint", escape(", ".join(overview.limits))))
    facts += [("Trials", escape(_states(overview.trials))), *_best(overview)]
    if len(goals) > 1:
        facts.append(("Pareto front", ", ".join(map(_link, overview.front)) or "No complete trial is feasible."))
    said = {"Importances": importances_text(overview), "Spread between seeds": spread_text(overview)}
    facts += [(name, escape(text)) for name, text in said.items() if text]
    return [*facts, *_costs(overview, float(study.user_attrs.get(ELAPSED_S, 0.0)))]


def _states(trials: list[FrozenTrial]) -> str:
    done = Counter(state_of(trial) for trial in trials if is_finished(trial))
    rest = Counter(state_of(trial) for trial in trials if not is_finished(trial))
    active = {state: rest.pop(state) for state in ("running", "waiting") if state in rest}
    parts = [
        f"{done.total()} finished" + (f": {_counted(done)}" if done else ""),
        _counted(active),
        f"{rest.total()} attempts were repeated: {_counted(rest)}" if rest else "",
    ]
    return "; ".join(part for part in parts if part)


def _counted(states: dict[str, int]) -> str:
    return ", ".join(f"{states[state]} {state.replace('_', ' ')}" for state in sorted(sorted(states), key=in_order))


def _best(overview: Overview) -> list[tuple[str, str]]:
    best = overview.best
    if best is None:
        lacking = "No trial keeps the constraints." if overview.scored else "No trial has finished with a value yet."
        return [("Best trial", lacking)]
    values = zip(overview.goals, best.values, strict=True)
    reached = ", ".join(f"{goal.metric} {number_text(value)}" for goal, value in values)
    settings = [(escape(name), escape(number_text(value))) for name, value in best.trial.params.items()]
    others = [(escape(name), number_text(value)) for name, value in measured(best.trial).items()]
    facts = [("Best trial", f"{_link(best.trial)}: <strong>{escape(reached)}</strong>")]
    facts += [("Its settings", table([], settings))] if settings else []
    if others:
        facts.append(("Its best epoch", f"<details><summary>all metrics</summary>{table([], others)}</details>"))
    return facts


def _costs(overview: Overview, elapsed_s: float) -> list[tuple[str, str]]:
    lines = []
    for unit, groups in costs(overview.trials).items():
        parts = ", ".join(f"{group} {number_text(hours)}" for group, hours in groups.items())
        lines.append(f"{number_text(sum(groups.values()))} {unit} in all: {parts}")
    if elapsed_s:
        lines.append(f"{duration(elapsed_s)} of searching")
    return [("Cost", "<br>".join(lines))] if lines else []


def trial_table(overview: Overview) -> str:
    """Returns a table with a row for each attempt; a repeated attempt links to the first attempt of its trial."""
    short, units = short_names(overview.settings), list(costs(overview.trials))
    names = ["number", "trial", "state", "reason", *short.values(), *(goal.metric for goal in overview.goals)]
    names += ["epochs", *units]
    rows = [_row(trial, overview, units) for trial in overview.trials]
    return wide_table([escape(name) for name in names], rows, kind="trials")


def _row(trial: FrozenTrial, overview: Overview, units: list[str]) -> str:
    first_attempt, state, standing = first_attempt_of(trial), state_of(trial), _standing(trial, overview)
    values = values_of(trial, overview.goals[0]) or [float("nan")] * len(overview.goals)
    cells = [
        f"<td>{trial.number}</td>",
        f"<td>{first_attempt if first_attempt == trial.number else _number_link(first_attempt)}</td>",
        f'<td><span class="state {escape(state)}">{escape(state.replace("_", " "))}</span>'
        f"{f', {standing}' if standing else ''}</td>",
        f'<td class="text">{escape(_why(trial)) or ABSENT}</td>',
        *(f"<td>{escape(number_text(trial.params.get(name)))}</td>" for name in overview.settings),
        *(f"<td>{number_text(value)}</td>" for value in values),
        f"<td>{len(epochs_of(trial))}</td>",
        *(
            f"<td>{number_text(cost_hours(trial) or None) if unit == cost_unit(trial) else ABSENT}</td>"
            for unit in units
        ),
    ]
    return f'<tr id="number-{trial.number}"{" class=best" if standing == "best" else ""}>{"".join(cells)}</tr>'


def _standing(trial: FrozenTrial, overview: Overview) -> str:
    if overview.best is not None and trial.number == overview.best.trial.number:
        return "best"
    on_front = len(overview.goals) > 1 and trial.number in [one.number for one in overview.front]
    return "Pareto front" if on_front else ""


def _why(trial: FrozenTrial) -> str:
    missed = [f"infeasible: {name} missed by {number_text(excess)}" for name, excess in violations(trial).items()]
    repeats = [f"repeats number {trial.user_attrs['retry_of']}"] if "retry_of" in trial.user_attrs else []
    return "; ".join([*missed, *filter(None, [reason_of(trial)]), *repeats])


def _link(trial: FrozenTrial) -> str:
    return f'<a href="#number-{trial.number}">trial {first_attempt_of(trial)}</a>'


def _number_link(number: int) -> str:
    return f'<a href="#number-{number}">{number}</a>'

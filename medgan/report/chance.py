"""Says which findings of a study may be chance: the importances of its settings."""

from medgan.report.study_overview import Overview, short_names


def importances_text(overview: Overview) -> str | None:
    """Returns a sentence for each goal: which settings can be told from chance; None if there are no importances."""
    if isinstance(overview.importances, str):
        return None
    short, sentences = short_names(overview.settings), []
    for goal, found in zip(overview.goals, overview.importances, strict=True):
        count = f"{len(found.above)} of" if found.above else "None of the"
        aim = f" for {goal.metric}" if len(overview.goals) > 1 else ""
        names = f": {', '.join(short[name] for name in found.above)}" if found.above else ""
        sentences.append(f"{count} {len(short)} settings can be told from chance{aim}{names}.")
    return " ".join(sentences)

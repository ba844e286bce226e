"""The qualitative card of LLM-KICK's figure 1: the same question, answered by dense and compressed models."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import kick_data, sheet, style
from analysis.kick_data import Missing, Study
from analysis.kick_draw import Drawing, Looks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Line = tuple[float, list[tuple[float, str, dict[str, Any]]]]  # inches, texts with their place and look

ROLES = ("factoid", "summ", "instruct")
SHOWN = 4  # compressed models on a card, as in the paper


def fig1_card(study: Study) -> Drawing:
    """One item per kind of task that dense answers and that most compressed models disagree on."""
    parts = [_of_task(study, model, role) for model in study.models for role in ROLES if study.role(role)]
    parts = [part for part in parts if len(part)]
    if not parts:
        raise Missing("no stored item of factoid, summ or instruct has an answer (extra.prediction)")
    lines = pd.concat(parts, ignore_index=True)
    return Drawing(lines, text=_markdown(study, lines))


def _of_task(study: Study, model: str, role: str) -> pd.DataFrame:
    """The card of one task: dense, then up to four cells from different series that failed or nearly did."""
    task = study.role(role)
    own = study.of(task)[lambda p: p["model"] == model]
    if not (own["state"] == "dense").any():
        return pd.DataFrame()  # another model of the study was asked this
    answers = {p["cells"].split()[0]: _answers(study, p) for p in own.to_dict("records")}
    chosen = _cells(own)
    dense = own[own["state"] == "dense"]["cells"].iloc[0].split()[0]
    cells = [c for c in chosen["cells"].str.split().str[0] if answers[c]]
    right = [i for i, (score, _) in answers[dense].items() if score >= 1]
    shared = [i for i in right if all(i in answers[c] for c in cells)]
    if not shared or not cells:
        return pd.DataFrame()
    item = max(shared, key=lambda i: (_telling([answers[c][i][0] for c in cells]), -shared.index(i)))
    lines = pd.concat([own[own["state"] == "dense"], chosen[chosen["cells"].str.split().str[0].isin(cells)]])
    first = lines["cells"].str.split().str[0]
    said = [answers[c][item] for c in first]
    target = next((e.get("target", "") for i, _, _, _, e in study.items(dense, task) if i == item), "")
    return lines.assign(
        question=item, target=str(target), answer=[text for _, text in said], item_score=[s for s, _ in said]
    )


def _telling(scores: list[float]) -> int:
    """How many pairs of models an item tells apart."""
    return sum(a != b for i, a in enumerate(scores) for b in scores[i + 1 :])


def _answers(study: Study, point: dict[str, Any]) -> dict[str, tuple[float, str]]:
    """Item -> score and answer, of the first cell of a point; items without an answer are left out."""
    items = study.items(point["cells"].split()[0], point["task"])
    return {
        i: (float(score), _text(extra["prediction"]))
        for i, metric, score, _, extra in items
        if metric == point["metric"] and score is not None and "prediction" in extra
    }


def _text(said: Any) -> str:
    """An answer, or those of all turns."""
    return " / ".join(str(turn).strip() for turn in (said if isinstance(said, list) else [said]))


def _asked(group: pd.DataFrame) -> str:
    """Which item it is, and what was wanted where the item says."""
    first = group.iloc[0]
    return f"item {first['question']}" + (f"; wanted: {first['target']}" if first["target"] else "")


def _cells(own: pd.DataFrame) -> pd.DataFrame:
    """Of each series the first budget that fails, else its last; the series that fall first come first."""
    line = kick_data.by_budget(own).assign(failed=lambda p: p["state"] == "fail")
    picks = []
    for _, group in line.groupby("series"):
        failed = group[group["failed"]]
        picks.append(failed.head(1) if len(failed) else group.tail(1))
    found = pd.concat(picks) if picks else line
    return found.sort_values(["failed", "budget"], ascending=[False, True]).head(SHOWN)


def _names(line: Any) -> str:
    """Who answers."""
    if line.state == "dense":
        return "dense"
    return f"{line.series}, {100 * line.budget:.3g} % removed"


def card(lines: pd.DataFrame, looks: Looks) -> list[Figure]:
    """Draws the card: a block per question, a line per model; a further sheet where one is full."""
    from matplotlib.figure import Figure as NewFigure

    on = sheet.now()
    width, letters = on.width or 8.6, on.letters - 0.5
    at = (0.25, 2.05, 2.55) if width > 5 else (0.2, 1.0, 1.3)  # inches of name, score and answer
    letter = sheet.LETTER * letters / 8
    blocks = [_lines(group, at, width, letter) for _, group in lines.groupby(["model", "task"], sort=False)]
    sheets: list[list[list[Line]]] = [[]]
    for block in blocks:
        if on.height and sheets[-1] and sum(map(_high, [*sheets[-1], block])) + 0.2 > on.height:
            sheets.append([])
        sheets[-1].append(block)
    figures = []
    for own in sheets:
        height = on.height if on.fills else sum(map(_high, own)) + 0.2
        figures.append(NewFigure(figsize=(width, height)))
        y = height - 0.2
        for high, texts in (line for block in own for line in block):
            for x, text, look in texts:
                figures[-1].text(x / width, y / height, text, va="top", fontsize=letters, **look)
            y -= high
    return figures


def _lines(group: pd.DataFrame, at: tuple[float, ...], width: float, letter: float) -> list[Line]:
    """The lines of one question: their inches, and texts with their place and look."""
    model, task = group[["model", "task"]].iloc[0]
    asked = textwrap.shorten(_asked(group), int((width - 0.3) / letter), placeholder=" ...")
    head: list[Line] = [(0.19, [(0.15, f"{style.short_task(str(task))} ({model})", {"fontweight": "bold"})])]
    head.append((0.24, [(0.15, asked, {"color": "#555555"})]))
    for line in group.itertuples():
        look = {"color": "#000000" if line.item_score >= 1 else "#B23A00"}
        answer = textwrap.wrap(str(line.answer) or "(nothing)", int((width - at[2] - 0.1) / letter))[:2]
        name = textwrap.wrap(_names(line), int((at[1] - at[0]) / letter))
        texts = [(at[0], "\n".join(name), {"color": "#333333"})]
        texts += [(at[1], style.number(line.item_score, 2), look), (at[2], "\n".join(answer), look)]
        head.append((0.06 + 0.17 * max(len(name), len(answer)), texts))
    return [*head, (0.19, [])]


def _high(block: list[Line]) -> float:
    """Inches of a block."""
    return sum(high for high, _ in block)


def _markdown(study: Study, lines: pd.DataFrame) -> str:
    """The card as text."""
    out = [f"# The same question, before and after ({study.name})", ""]
    for (model, task), group in lines.groupby(["model", "task"], sort=False):
        out += [f"## {style.short_task(str(task))} ({model})", ""]
        out += [_asked(group), ""]
        out += ["| model | score | answer | task score | state |", "| --- | --- | --- | --- | --- |"]
        out += [
            f"| {_names(line)} | {style.number(line.item_score, 2)} | {str(line.answer).replace('|', '/')} "
            f"| {style.number(line.value)} (n={line.n:.0f}) | {line.state} |"
            for line in group.itertuples()
        ]
        out.append("")
    out.append("The item is the first of those that dense answers and that tell the shown models apart most.")
    return "\n".join(out) + "\n"

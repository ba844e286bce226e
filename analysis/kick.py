"""LLM-KICK's tables, figures and verdicts from a study of the store (arXiv:2310.01382).

python -m analysis.kick STUDY [--store results] [--out DIR] [--format png,pdf,svg]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pandas as pd

from analysis import (
    collect,
    command,
    kick_card,
    kick_data,
    kick_draw,
    kick_figures,
    kick_more,
    kick_ours,
    kick_tables,
    outfile,
    sheet,
    style,
    verdicts,
)
from analysis.kick_draw import Draw, Drawing, Looks
from analysis.render import latex, markdown

FIGURES: dict[str, tuple[Callable[[kick_data.Study], Drawing], Draw]] = {  # its data, and what draws them
    "fig1_perplexity": (kick_figures.fig1_perplexity, kick_figures.triptych("perplexity (log, inverted)")),
    "fig1_card": (kick_card.fig1_card, kick_card.card),
    "fig2_factoid": (kick_figures.fig2_factoid, kick_figures.triptych("exact match")),
    "fig3_mcr": (kick_figures.fig3_mcr, kick_figures.disciplines),
    "fig4_books": (kick_figures.fig4_books, kick_draw.grid("exact match", lambda _: 2)),
    "fig5_summ": (kick_more.fig5("budget", "fig5_summ"), kick_more.lengths),
    "fig5_summ_bits": (kick_more.fig5("bits", "fig5_summ_bits"), kick_more.lengths),
    "fig5_summ_patterns": (kick_more.fig5("pattern", "fig5_summ_patterns"), kick_more.lengths),
    "fig6_instruct": (kick_more.fig6_instruct, kick_more.instructions),
    "fig7_calibration": (
        kick_more.fig7_calibration,
        kick_more.levels("calibration samples", "accuracy", log=True),
    ),
    "fig14_shots": (kick_more.fig14_shots, kick_more.levels("examples in the prompt", "accuracy")),
    "match_matrix": (kick_ours.match_matrix, kick_ours.matrices),
    "bytes": (kick_ours.bytes_figure, kick_ours.over_bytes),
    "knowledge_perplexity": (kick_ours.knowledge_perplexity, kick_ours.scatter),
    "flips": (kick_ours.flips, kick_ours.flip_panels),
}


ALIKE = {"bytes": "pareto"}  # a figure -> the one of the whole study that shows all it shows


def figures(
    study: kick_data.Study,
    folder: Path,
    formats: Sequence[str],
    say: Callable[[str], None],
    besides: Collection[str] = (),
) -> list[Path]:
    """Draw what the study has the ingredients of; say in one line each what it has not.

    `besides`: names of figures that are drawn already; what shows nothing more is left out.
    """
    paths: list[Path] = []
    looks = looks_of(kick_data.small(study.points))
    for name, (make, _) in FIGURES.items():
        if ALIKE.get(name) in besides:
            say(f"{name}: left out: {ALIKE[name]} shows the same points, and more")
            continue
        try:
            drawing = make(study)
        except kick_data.Missing as lost:
            say(f"{name}: left out: {lost}")
            continue
        for note in drawing.notes:
            say(note)
        told = drawing.data[_columns(drawing.data)]
        paths += sheet.write(name, told, drawings(name, told, looks), folder, formats)
        if drawing.text:
            paths.append(_text(folder / f"{name}.md", drawing.text))
    return paths


def drawings(name: str, data: pd.DataFrame, looks: Looks) -> Iterator[tuple[str, sheet.Make]]:
    """The figure of that name, from the columns of its CSV."""
    yield name, lambda: FIGURES[name][1](data, looks)


def looks_of(points: pd.DataFrame) -> Looks:
    """Colours of the series of all figures."""
    return style.looks(sorted(set(points["series"])))


def tables(study: kick_data.Study, folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Write every table as Markdown, LaTeX and CSV."""
    paths: list[Path] = []
    for name, make in kick_tables.TABLES.items():
        try:
            grids, data = make(study)
        except kick_data.Missing as lost:
            say(f"{name}: left out: {lost}")
            continue
        paths.append(_text(folder / f"{name}.md", "\n".join(map(markdown, grids))))
        paths.append(_text(folder / f"{name}.tex", "\n".join(map(latex, grids))))
        paths.append(_text(folder / f"{name}.csv", csv(data)))
    return paths


def csv(data: pd.DataFrame) -> str:
    """The numbers behind a table or figure, unrounded: what it drew first, then the facts of each point."""
    return str(data[_columns(data)].to_csv(index=False))


def _columns(data: pd.DataFrame) -> list[str]:
    """What of the data is told."""
    return [c for c in (*_EXTRA, *kick_data.CSV) if c in data]


_EXTRA = (
    *("panel", "axis", "x", "unit", "group", "question", "kept", "ppl_change", "answer", "item_score"),
    *("target", "contiguous", "largest", "possible", "first_fail", "tested", "undecided"),
)


def _text(path: Path, text: str) -> Path:
    """Write a text whole."""
    with outfile.whole(path) as temp:
        temp.write_text(text, encoding="utf-8")
    return path


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Read the options and write everything."""
    options = command.parser("LLM-KICK's tables, figures and verdicts of a study")
    options.add_argument("--format", default="png,pdf,svg", help="of figures: png, pdf, svg (default: all)")
    chosen = options.parse_args(argv)
    if chosen.source:
        raise collect.AnalysisError("--from: W&B holds no items, and these tests need them; valid is --store")
    formats = command.listed(chosen.format, "format", sheet.FORMATS)
    study = kick_data.study(chosen.study, chosen.store, command.read(chosen))
    folder = Path(chosen.out or Path(chosen.store) / chosen.study / "kick")
    paths = tables(study, folder, say) + figures(study, folder, formats, say)
    found = verdicts.verdicts(study)
    paths.append(_text(folder / "verdicts.md", verdicts.page(found, study)))
    paths.append(_text(folder / "verdicts.json", verdicts.as_json(found)))
    return paths


def say(line: str) -> None:
    """Tell what was left out."""
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(command.run(main))

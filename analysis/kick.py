"""LLM-KICK's tables, figures and verdicts from a study of the store (arXiv:2310.01382).

python -m analysis.kick STUDY [--store results] [--out DIR] [--format png,pdf,svg]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis import collect, kick_card, kick_data, kick_figures, kick_more, kick_ours, outfile, pareto, style
from analysis.kick_draw import Drawing, Looks

FIGURES: dict[str, Callable[[kick_data.Study, Looks], Drawing]] = {
    "fig1_perplexity": kick_figures.fig1_perplexity,
    "fig1_card": kick_card.fig1_card,
    "fig2_factoid": kick_figures.fig2_factoid,
    "fig3_mcr": kick_figures.fig3_mcr,
    "fig4_books": kick_figures.fig4_books,
    "fig5_summ": kick_more.fig5("budget", "fig5_summ"),
    "fig5_summ_bits": kick_more.fig5("bits", "fig5_summ_bits"),
    "fig5_summ_patterns": kick_more.fig5("pattern", "fig5_summ_patterns"),
    "fig6_instruct": kick_more.fig6_instruct,
    "fig7_calibration": kick_more.fig7_calibration,
    "fig14_shots": kick_more.fig14_shots,
    "match_matrix": kick_ours.match_matrix,
    "bytes": kick_ours.bytes_figure,
    "knowledge_perplexity": kick_ours.knowledge_perplexity,
    "flips": kick_ours.flips,
}


def figures(study: kick_data.Study, folder: Path, formats: Sequence[str], say: Callable[[str], None]) -> list[Path]:
    """Draw what the study has the ingredients of; say in one line each what it has not."""
    import matplotlib

    paths: list[Path] = []
    looks = style.looks(sorted(set(kick_data.small(study.points)["series"])))
    with matplotlib.rc_context(style.RC):
        for name, make in FIGURES.items():
            try:
                drawing = make(study, looks)
            except kick_data.Missing as lost:
                say(f"{name}: left out: {lost}")
                continue
            for note in drawing.notes:
                say(note)
            paths += pareto.save(drawing.figure, folder / name, formats)
            paths.append(_text(folder / f"{name}.csv", csv(drawing)))
            if drawing.text:
                paths.append(_text(folder / f"{name}.md", drawing.text))
    return paths


def csv(drawing: Drawing) -> str:
    """The numbers behind a figure, unrounded: what it drew first, then the facts of each point."""
    own = [c for c in drawing.data.columns if c not in kick_data.CSV and c in _EXTRA]
    columns = [c for c in kick_data.CSV if c in drawing.data]
    return str(drawing.data[[*own, *columns]].to_csv(index=False))


_EXTRA = ("x", "group", "question", "kept", "ppl_change", "answer", "item_score", "target",
          "contiguous", "largest", "possible", "first_fail", "tested", "undecided")  # fmt: skip


def _text(path: Path, text: str) -> Path:
    """Write a text whole."""
    with outfile.whole(path) as temp:
        temp.write_text(text, encoding="utf-8")
    return path


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Read the options and write everything."""
    options = collect.parser("LLM-KICK's tables, figures and verdicts of a study")
    options.add_argument("--format", default="png,pdf,svg", help="of figures: png, pdf, svg (default: all)")
    chosen = options.parse_args(argv)
    formats = collect.listed(chosen.format, "format", pareto.FORMATS)
    study = kick_data.study(chosen.study, chosen.store)
    folder = Path(chosen.out or Path(chosen.store) / chosen.study / "kick")
    return figures(study, folder, formats, lambda line: sys.stdout.write(f"{line}\n") and None)


if __name__ == "__main__":
    sys.exit(collect.run(main))

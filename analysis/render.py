"""Tables without a format, and the formats: GitHub's Markdown and LaTeX with booktabs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Cell:
    """One printed cell: its text, whether it matches, and its footnote."""

    text: str = ""
    match: bool = False
    note: str = ""


@dataclass
class Grid:
    """A table without a format: a head, blocks of lines, and what stands below."""

    title: str
    head: list[str]
    blocks: list[list[list[Cell]]] = field(default_factory=list)
    legend: str = ""

    def notes(self) -> list[str]:
        """Footnotes in the order of their first use."""
        cells = (cell for block in self.blocks for line in block for cell in line)
        return list(dict.fromkeys(cell.note for cell in cells if cell.note))


def markdown(grid: Grid) -> str:
    """GitHub's tables with numbered footnotes below."""
    numbers = {note: i for i, note in enumerate(grid.notes(), 1)}

    def show(cell: Cell) -> str:
        text = cell.text.replace("|", "\\|")
        text = f"**{text}**" if cell.match else text
        return text + (f" <sup>{numbers[cell.note]}</sup>" if cell.note else "")

    rows = [[show(cell) for cell in line] for block in grid.blocks for line in block]
    widths = [max(map(len, column)) for column in zip(grid.head, *rows, strict=True)]
    rule = ["-" * max(3, width) for width in widths]
    padded = [[t.ljust(w) for t, w in zip(row, widths, strict=True)] for row in [grid.head, rule, *rows]]
    lines = [f"| {' | '.join(row)} |" for row in padded]
    notes = [f"{i}. {note}" for note, i in numbers.items()]
    below = ["", *notes] if notes else []
    return "\n".join([f"### {grid.title}", "", *lines, "", grid.legend, *below]) + "\n"


_TEX = {
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "✓": r"$^{\checkmark}$", "—": "---", "–": "--", "−": "$-$", "∞": r"$\infty$"},
    **{"·": r"$\cdot$"},
    **{"↑": r"$\uparrow$", "↓": r"$\downarrow$", "<": r"$<$", ">": r"$>$"},
}


def tex_text(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(_TEX.get(c, c) for c in text)


def latex(grid: Grid) -> str:
    """Booktabs, matching cells bold, footnotes below; needs booktabs and amssymb."""
    numbers = {note: i for i, note in enumerate(grid.notes(), 1)}

    def show(cell: Cell) -> str:
        text = rf"\textbf{{{tex_text(cell.text)}}}" if cell.match else tex_text(cell.text)
        return text + (rf"\textsuperscript{{{numbers[cell.note]}}}" if cell.note else "")

    blocks = ["\n".join(" & ".join(map(show, line)) + r" \\" for line in block) for block in grid.blocks]
    body = "\n\\midrule\n".join(blocks)
    notes = [rf"\textsuperscript{{{i}}} {tex_text(note)}\par" for note, i in numbers.items()]
    head = " & ".join(map(tex_text, grid.head)) + r" \\"
    parts = [
        *("% needs \\usepackage{booktabs,amssymb}", r"\begin{table}\centering\small"),
        rf"\caption{{{tex_text(grid.title)}. {tex_text(grid.legend.replace('*', ''))}}}",
        *(rf"\begin{{tabular}}{{ll{'r' * (len(grid.head) - 2)}}}", r"\toprule", head, r"\midrule", body),
        *(r"\bottomrule", r"\end{tabular}", *([r"\par\footnotesize"] if notes else []), *notes),
        r"\end{table}",
    ]
    return "\n".join(parts) + "\n"

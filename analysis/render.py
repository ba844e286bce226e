"""Tables without a format, and the formats: GitHub's Markdown and LaTeX with booktabs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from analysis.style import printable


@dataclass
class Cell:
    """One printed cell: its text and mark, and its footnote.

    `why` is the footnote without the cell's name: LaTeX has one for all cells that it is said of.
    """

    text: str = ""
    match: bool = False
    note: str = ""
    why: str = ""
    best: bool = False


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


def markdown_text(text: str) -> str:
    """Text for Markdown: on one line, and what a name holds is no HTML; emphasis of our own stays."""
    return printable(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")


def markdown(grid: Grid) -> str:
    """GitHub's tables with numbered footnotes below."""
    numbers = {note: i for i, note in enumerate(grid.notes(), 1)}

    def show(cell: Cell) -> str:
        text = markdown_text(cell.text).replace("|", "\\|")
        text = f"**{text}**" if cell.match else text
        return text + (f" <sup>{numbers[cell.note]}</sup>" if cell.note else "")

    rows = [[show(cell) for cell in line] for block in grid.blocks for line in block]
    head = [markdown_text(name).replace("|", "\\|") for name in grid.head]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["-" * max(3, width) for width in widths]
    padded = [[t.ljust(w) for t, w in zip(row, widths, strict=True)] for row in [head, rule, *rows]]
    lines = [f"| {' | '.join(row)} |" for row in padded]
    notes = [f"{i}. {markdown_text(note)}" for note, i in numbers.items()]
    below = ["", *notes] if notes else []
    legend = "\n\n".join(map(markdown_text, grid.legend.split("\n\n")))
    return "\n".join([f"### {markdown_text(grid.title)}", "", *lines, "", legend, *below]) + "\n"


_TEX = {
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "✓": r"$^{\checkmark}$", "✗": r"$\times$", "×": r"$\times$", "∞": r"$\infty$"},
    **{"—": "---", "–": "--", "−": "$-$", "·": r"$\cdot$", "≤": r"$\leq$", "≥": r"$\geq$"},
    **{"↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "<": r"$<$", ">": r"$>$"},
    **{"[": "{[}", "]": "{]}", "*": "{*}"},  # behind \\ they would be its argument
}
LINES = 46  # of a table on a page
BEST = " Underlined: the best value of its task and budget, not a test."


def tex_text(text: str) -> str:
    """Text that LaTeX prints as it stands; a sign that pdfTeX's fonts lack as its code point."""
    plain = " ".join(text.split())
    safe = [_TEX.get(c, c if c.isprintable() and ord(c) < 0x180 else f"U+{ord(c):04X}") for c in plain]
    return re.sub("-(?=-)", "-{}", "".join(safe)) if "--" in plain else "".join(safe)


def latex(grid: Grid, name: str = "", environment: str = "table") -> str:
    r"""Floats for \\input: booktabs, matching cells bold, best ones underlined, footnotes below each.

    A table too long for a page becomes several; one too wide is scaled down to the line.

    Args:
        grid: What is shown.
        name: What it is; the first part of caption and label, before the title.
        environment: `table`, or `table*` across two columns.
    """
    grid = replace(grid, title=f"{name}: {grid.title}".removeprefix(": "))
    slug = "-".join(re.findall(r"[A-Za-z0-9]+", grid.title))
    text = [
        _float(part, f"tab:{slug}" + (f"-{i}" if i > 1 else ""), environment)
        for i, part in enumerate(_pages(grid), 1)
    ]
    return "% needs \\usepackage{booktabs,amssymb,graphicx}\n" + "\n".join(text)


def _pages(grid: Grid) -> list[Grid]:
    """The same in parts of a page each, between blocks where that can be."""
    parts: list[list[list[list[Cell]]]] = [[]]
    for block in grid.blocks:
        for start in range(0, len(block), LINES):
            piece = block[start : start + LINES]
            if parts[-1] and sum(len(b) + 1 for b in parts[-1]) + len(piece) > LINES:
                parts.append([])
            parts[-1].append(piece)
    first, *rest = (replace(grid, blocks=blocks) for blocks in parts)
    return [first, *(replace(part, title=f"{grid.title}, continued", legend="") for part in rest)]


def _float(grid: Grid, label: str, environment: str) -> str:
    """One table; where only the first line of a block has a first column, that is a line of its own."""
    cells = [cell for block in grid.blocks for line in block for cell in line]
    notes = dict.fromkeys(cell.why or cell.note for cell in cells if cell.note)
    numbers = {note: i for i, note in enumerate(notes, 1)}
    headed = any(len(block) > 1 for block in grid.blocks)
    headed = headed and not any(line[0].text for block in grid.blocks for line in block[1:])
    head = grid.head[headed:]

    def show(cell: Cell) -> str:
        value, space, rest = tex_text(cell.text).partition(" ")
        rest = rf"{{\scriptsize {rest}}}" if rest.startswith((_TEX["±"], _TEX["["])) else rest
        text = (rf"\underline{{{value}}}" if cell.best else value) + space + rest
        text = rf"\textbf{{{text}}}" if cell.match else text
        return text + (rf"\textsuperscript{{{numbers[cell.why or cell.note]}}}" if cell.note else "")

    def lines(block: list[list[Cell]]) -> list[str]:
        first = block[0][0]
        above = (
            [rf"\multicolumn{{{len(head)}}}{{l}}{{\emph{{{show(first)}}}}}"] if headed and first.text else []
        )
        return above + [" & ".join(map(show, line[headed:])) for line in block]

    body = "\n\\midrule\n".join("\n".join(rf"{line} \\" for line in lines(b)) for b in grid.blocks)
    legend = grid.legend.replace("*", "") + (BEST if any(cell.best for cell in cells) else "")
    below = [tex_text(legend), *(rf"\textsuperscript{{{i}}} {tex_text(note)}" for note, i in numbers.items())]
    parts = [
        rf"\begin{{{environment}}}\centering\small",
        rf"\caption{{{tex_text(grid.title)}}}\label{{{label}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        *(rf"\begin{{tabular}}{{{'l' * (2 - headed)}{'r' * (len(grid.head) - 2)}}}", r"\toprule"),
        *(" & ".join(map(tex_text, head)) + r" \\", r"\midrule", body, r"\bottomrule", r"\end{tabular}}"),
        *(r"\par\raggedright\footnotesize", *(rf"{line}\par" for line in below if line)),
        rf"\end{{{environment}}}",
    ]
    return "\n".join(parts) + "\n"

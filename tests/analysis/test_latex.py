"""Tables for LaTeX: well formed, whatever names and reasons hold."""

import re

import pytest
import synthetic_study

from analysis import collect, kick_tables, render, tables

pytestmark = pytest.mark.slow

HOSTILE = "a_b$\\input{x}$ 5% #1 &{~}^ [x] * \n\n\\end{table} \u202e\U0001f600 --x"


def columns(line):
    """Fields of a line of a tabular, a field across several columns counted as so many."""
    spans = [int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
    return len(re.findall(r"(?<!\\)&", line)) + 1 + sum(spans)


def check(text):
    """Braces and environments nest, lines have as many fields as the tabular columns; number of tables."""
    assert text.isascii() or max(map(ord, text)) < 0x180
    bare = re.sub(r"\\[\\{}%]", "", re.sub(r"(?<!\\)%.*", "", text))
    depth = 0
    for sign in re.findall(r"[{}]", bare):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert text.count("$") % 2 == text.count(r"\$") % 2
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{([a-z*]+)\}", text):
        assert kind == "begin" or opened.pop() == name
        opened += [name] if kind == "begin" else []
    assert opened == []
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(set(labels)) == len(labels)
    tabulars = re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.S)
    for spec, body in tabulars:
        assert [rule in body for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [True] * 3
        lines = [line for line in body.splitlines() if line.endswith(r" \\")]
        assert {columns(line) for line in lines} == {len(spec)}
        assert not any(line.startswith(("[", "*")) for line in lines)
    return len(tabulars)


@pytest.mark.parametrize("name", ["quality", "size"])
def test_tables_are_well_formed(rows, name):
    grids = tables.quality(collect.frame(rows)) if name == "quality" else tables.sizes(collect.frame(rows))
    (text,) = (render.latex(grid, name, "table*") for grid in grids)
    assert check(text) == 1
    assert text.startswith(r"% needs \usepackage{booktabs,amssymb,graphicx}")
    assert rf"\caption{{{name}: nano}}\label{{tab:{name}-nano}}" in text
    assert text.rstrip().endswith(r"\end{table*}")


def test_hostile_names_are_printed(rows):
    for row in rows:
        row["model"] = HOSTILE
        row["reason"] = HOSTILE if row["state"] == "skipped" else row["reason"]
    for grids in (tables.quality(collect.frame(rows)), tables.sizes(collect.frame(rows))):
        (text,) = map(render.latex, grids)
        assert check(text) == 1
        start = (
            r"a\_b\$\textbackslash{}input\{x\}\$ 5\% \#1 \&\{\textasciitilde{}\}\textasciicircum{} {[}x{]}"
        )
        rest = r" {*} \textbackslash{}end\{table\} U+202EU+1F600 -{}-x"
        assert text.count(start + rest) == 2


def test_a_line_that_starts_with_a_bracket_is_no_argument_of_the_line_before():
    lines = [[render.Cell("[0, 1]"), render.Cell("*")], [render.Cell("[x"), render.Cell("1")]]
    assert check(render.latex(render.Grid("t", ["[a]", "b"], [lines]))) == 1


def test_matching_cells_are_bold_and_the_best_of_a_budget_is_underlined(rows):
    data = collect.frame(rows)
    text = render.latex(tables.quality(data)[0])
    own = data[(data["task"] == "nano_ppl") & (data["budget"] == 0.3)]
    best = own.loc[own["value"].idxmin()]
    part = text.partition(r"nano\_ppl")[2]
    marked = {
        line.split(" & ")[0]: line.split(" & ")[3] for line in part.splitlines() if line.count(" & ") == 4
    }
    assert [label for label, cell in marked.items() if r"\underline" in cell] == [best["label"]]
    assert f"\\underline{{{best['value']:.3f}}}" in marked[best["label"]]
    bold = {label for label, cell in marked.items() if cell.startswith(r"\textbf")}
    assert bold == set(own.loc[own["state"] == "match", "label"])
    assert "Underlined: the best value" in text


def test_where_all_are_equal_none_is_the_best(rows):
    for row in rows:
        row["value"] = 0.5 if "task" in row else None
    assert r"\underline" not in render.latex(tables.quality(collect.frame(rows))[0])


def test_cells_that_lack_for_one_reason_share_a_footnote():
    rows = synthetic_study.rows(
        methods=("slicegpt", "svd"), budgets=(0.3, 0.7), tasks=("nano_factoid", "nano_mcr")
    )
    (text,) = map(render.latex, tables.quality(collect.frame(rows)))
    assert text.count("---\\textsuperscript{1}") == 2
    assert text.count("slicegpt covers compensate") == 1
    assert check(text) == 1


def test_a_long_table_becomes_several():
    rows = synthetic_study.rows(budgets=(0.2, 0.4))
    (grid,) = tables.quality(collect.frame(rows))
    text = render.latex(grid, "quality")
    assert check(text) == 2
    assert r"\caption{quality: nano, continued}\label{tab:quality-nano-2}" in text
    assert sum(len(block) for block in grid.blocks) == len(re.findall(r"^[a-z_\\]+ & ", text, re.M)) - 2


def test_kicks_tables_are_well_formed():
    assert set(kick_tables.TABLES) == {"table2", "table3", "match_matrix", "flips"}
    cell = render.Cell("0.5 [0.4, 0.6] ✗", note="x at 0.3 failed: y", why="failed: y")
    grid = render.Grid("Quantised, nano", ["task", "dense", "gptq 8 bit"], [[[render.Cell("t"), cell, cell]]])
    text = render.latex(grid)
    assert check(text) == 1
    assert text.count("failed: y") == 1
    assert r"$\times$" in text

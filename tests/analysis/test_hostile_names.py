"""Names of models and tasks that hold markup, HTML and line breaks; options that hold nothing."""

import io

import pytest
from rich.console import Console
from scored_study import DENSE, GOOD, cell, right

from analysis import brief, collect, command, finish, kinds, pareto, render, tables
from analysis.compare import __main__ as compare

MODEL = "<img src=x>|[red]x[/nope]\n\x1b[31m&lt;"
TASK = "a[red]b[-x]|<b>"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    for model, key in ((MODEL, "m"), ("nano", "n")):
        cell(
            folder, "s", "dense", 0.0, {"mcr": DENSE["mcr"], TASK: right(10)}, model=model, key=key + "d" * 23
        )
        parent = {"mcr": DENSE["mcr"], TASK: right(10)}
        cell(
            folder,
            "s",
            "wanda",
            0.2,
            {"mcr": GOOD["mcr"], TASK: right(12)},
            parent,
            model=model,
            key=key * 24,
        )
    return folder


@pytest.mark.parametrize("make", [finish.table, brief.table])
@pytest.mark.parametrize("width", [40, 120])
def test_a_terminal_shows_them_as_they_are(root, make, width):
    data = collect.load("s", root)
    console = Console(width=300, file=io.StringIO(), record=True)
    console.print(make(data, width))
    text = console.export_text()
    assert TASK in text
    assert "[red]x[/nope]" in text
    assert "\x1b" not in text


def test_markdown_holds_no_html_and_one_line_per_row(root):
    quality, sizes = tables.quality(collect.load("s", root)), tables.sizes(collect.load("s", root))
    for grid in (*quality, *sizes):
        text = render.markdown(grid)
        assert "<img" not in text
        assert "<b>" not in text
        assert "\x1b" not in text
        title, blank, head, rule = text.splitlines()[:4]
        assert (title.startswith("### "), blank) == (True, "")
        assert head.count("|") - head.count("\\|") == rule.count("|")
    assert "### &lt;img src=x>|[red]x[/nope] \N{REPLACEMENT CHARACTER}[31m&amp;lt;\n" in "".join(
        map(render.markdown, quality)
    )


@pytest.mark.parametrize(
    ("main", "words", "said"),
    [
        (tables.main, ("--format", ""), "--format='': valid: md, tex, csv"),
        (tables.main, ("--format", ","), "--format=',': valid: md, tex, csv"),
        (compare.main, ("s", "--format", ""), "--format='': valid: md, csv, json"),
        (pareto.main, ("--x", ""), "--x='': valid: bytes, nominal"),
        (kinds.main, ("--x", ""), "--x='': valid: bytes, nominal"),
        (pareto.main, ("--format", " "), "--format=' ': valid: png, pdf, svg"),
    ],
)
def test_a_choice_of_nothing_is_refused(root, capsys, main, words, said):
    assert command.run(main, ["s", *words, "--store", str(root)]) == 2
    assert capsys.readouterr().err == f"error: {said}\n"

"""Figures for paper and talk: sizes, letters, fonts, pages, and drawing again from the CSV beside a picture.

After a wanted change of the looks: PYTHONPATH=.:tests/analysis python tests/analysis/test_paper.py
"""

import io
import re
import shutil
import zlib
from pathlib import Path

import pandas as pd
import pytest
import synthetic_study
from fontTools.ttLib import TTFont
from matplotlib.image import imread
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text

from analysis import collect, command, curves, figures, kick, kinds, legends, pareto, rooms, sheet
from crunchmark.store import Store

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).with_name("golden_curves.png")
RESULTS = Path(__file__).parents[2] / "docs" / "results"
SHEETS = {
    f"{style}-{width}": on for style, own in sheet.SHEETS.items() for width, on in own.items() if on.width
}
TASKS = ("nano_factoid", "nano_mcr", "nano_icra_open", "nano_summ", "nano_ppl")


def study(methods=("svd", "gptq", "wanda", "slicegpt"), tasks=TASKS, **more):
    return collect.frame(synthetic_study.rows(methods=methods, budgets=(0.2, 0.4, 0.6), tasks=tasks, **more))


def golden(path, shift=0.0):
    data = study(("svd", "gptq"), tasks=("nano_factoid", "nano_ppl"))
    kept = curves.table(pareto.chosen_points(data)).assign(kept=lambda t: t["kept"] * (1 - shift))
    with sheet.on(sheet.SHEETS["neurips"]["half"]):
        (figure,) = curves.curves(kept)
        figure.savefig(path, dpi=100)


def test_the_golden_image(tmp_path):
    golden(tmp_path / "now.png")
    assert compare_images(str(GOLDEN), str(tmp_path / "now.png"), tol=3) is None
    golden(tmp_path / "lower.png", shift=0.05)
    assert compare_images(str(GOLDEN), str(tmp_path / "lower.png"), tol=3) is not None


def embedded(pdf):
    """Fonts in a PDF: the subtypes of its font objects, and the font files as they unpack."""
    kinds_ = set(re.findall(rb"/Subtype /(Type\d|TrueType|CIDFontType\d)", pdf))
    streams = [
        zlib.decompress(s) for s in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S) if s[:1] == b"x"
    ]
    return kinds_, [s for s in streams if s[:4] in (b"\0\1\0\0", b"true")]


def test_a_study_as_figures_of_a_paper(root, capsys):
    assert (
        command.run(figures.main, ["demo", "style=neurips", "--task", "factoid", "--store", str(root)]) == 0
    )
    told = capsys.readouterr()
    folder = root / "demo" / "figures" / "neurips"
    names = {Path(path).name for path in told.out.split()}
    assert names >= {"quality.tex", "size.tex"}
    for name in ("pareto", "curves", "kinds"):
        assert {f"{name}.pdf", f"{name}.png", f"{name}.csv"} <= names
        pdf = (folder / f"{name}.pdf").read_bytes()
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", pdf)
        assert float(box[1]) == pytest.approx(5.5 * 72, abs=0.5)
        assert float(box[2]) <= 8 * 72
        subtypes, files = embedded(pdf)
        assert b"Type3" not in subtypes
        assert b"Type1" not in subtypes
        assert pdf.count(b"/FontFile2") == len(files) >= 1
        assert all(len(TTFont(io.BytesIO(file)).getGlyphOrder()) > 5 for file in files)
    assert "compensation: left out: study: no repaired cell" in told.err
    assert "rooms: left out: plan: no cell of the study" in told.err
    shown = {name: (folder / name).read_bytes() for name in names if name.endswith("png")}
    for path in folder.glob("*.p*"):
        path.write_bytes(b"gone") if path.name in shown else path.unlink()
    assert command.run(figures.main, [str(folder), "style=neurips"]) == 0
    assert {name: (folder / name).read_bytes() for name in shown} == shown  # from the CSV, the same bytes


def inside(figure):
    """Whether every text is legible and in the figure."""
    figure.canvas.draw()
    box, size = figure.get_tightbbox(), figure.get_size_inches()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    small = [t.get_text() for t in texts if t.get_fontsize() < 6]
    return min(box.x0, box.y0, size[0] - box.x1, size[1] - box.y1) > -0.05 and small == []


@pytest.mark.parametrize("name", SHEETS)
def test_figures_fit_their_sheet(name):
    on, data = SHEETS[name], study(("svd", "gptq"), TASKS[3:])
    with sheet.on(on):
        made = [*pareto.drawings(pareto.table(data)), *kinds.drawings(kinds.sorted_out(data))]
        drawn = [figure for _, make in made for figure in make()]
    for figure in drawn:
        width, height = figure.get_size_inches()
        assert width == pytest.approx(on.width)
        assert height == pytest.approx(on.height) if on.fills else height <= on.height * 1.1
        assert inside(figure)


def overlaps(figure):
    """Pairs of panels, legends, titles, names of axes and lines of text in a figure that meet."""
    figure.canvas.draw()
    drawn = [axis for axis in figure.axes if axis.has_data()]
    names = [
        t for a in drawn for t in (*a.get_children(), a.xaxis.label, a.yaxis.label) if isinstance(t, Text)
    ]
    texts = [text for text in (*names, *figure.texts) if text.get_text().strip()]
    boxes = [(str(thing), thing.get_window_extent()) for thing in (*drawn, *figure.legends, *texts)]
    return [(a, b) for i, (a, one) in enumerate(boxes) for b, two in boxes[:i] if one.overlaps(two)]


@pytest.mark.parametrize("name", SHEETS)
def test_nothing_lies_on_anything(name):
    tasks = ("nano_factoid", "nano_icra_closed", "nano_mcr", "nano_needle", "nano_ppl")
    rows = synthetic_study.rows(methods=("svd", "gptq", "slicegpt"), budgets=(0.1, 0.7), tasks=tasks)
    for row in (row for row in rows if row.get("task") == "nano_ppl" and row["budget"] == 0.7):
        row["value"] *= 1000  # beyond the axis
    with sheet.on(SHEETS[name]):
        data = collect.frame(rows)
        made = [*pareto.drawings(pareto.table(data)), *kinds.drawings(kinds.sorted_out(data))]
        drawn = [figure for _, make in made for figure in make()]
    words = [text.get_text() for figure in drawn for text in figure.texts]
    assert any(word.startswith("Not drawn (no such cell)") for word in words)
    for figure in drawn:
        assert inside(figure)
        assert overlaps(figure) == []


@pytest.mark.parametrize(("names", "columns"), [(7, [7, 4, 3, 2]), (5, [5, 3, 2]), (9, [5, 3, 2]), (1, [])])
def test_no_name_of_a_legend_is_alone_below_the_first(names, columns):
    assert legends.even(names) == columns


def test_what_does_not_fit_goes_to_a_further_sheet(tmp_path):
    data = study(tuple(synthetic_study.METHODS)[:7], tasks=("nano_factoid",))
    kept = curves.table(pareto.chosen_points(data))
    with sheet.on(sheet.SHEETS["slides"]["full"]):
        ((stem, make),) = curves.drawings(kept)
        both = make()
        paths = sheet.save(both, tmp_path / stem, ("png",))
    assert [path.name for path in paths] == ["curves.png", "curves-2.png"]
    titles = [a.get_title(loc="left") for figure in both for a in figure.axes if a.has_data()]
    assert titles == sorted(list(synthetic_study.METHODS)[:7])
    assert [imread(path).shape[:2] for path in paths] == [(1080, 1920)] * 2


def test_what_would_be_a_book_is_left_out():
    lines = [("nano", f"m{i}", 0.3, 0, 0, "q_proj", "layers.0.q_proj", 0.5) for i in range(200)]
    ((_, make),) = rooms.drawings(pd.DataFrame(lines, columns=list(rooms.COLUMNS)))
    with (
        sheet.on(sheet.SHEETS["slides"]["full"]),
        pytest.raises(collect.AnalysisError, match="at most 9 are drawn"),
    ):
        make()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["style=icml"], "style='icml': valid: page, neurips, acl, slides"),
        (["style=slides", "width=half"], "width='half': valid with style=slides: full"),
        (["size=2"], "'size=2': valid: style=page|neurips|acl|slides, width=full|half"),
        (["neurips"], "'neurips': valid: style="),
        (["--format", "gif"], "--format='gif': valid: png, pdf, svg"),
    ],
)
def test_wrong_options_are_one_line(root, capsys, words, said):
    assert command.run(figures.main, ["demo", *words, "--store", str(root)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")


@pytest.fixture
def folder(tmp_path):
    """Pictures with the numbers behind them, as in docs/results."""
    kept = curves.table(pareto.chosen_points(study(("svd",), tasks=("nano_factoid",))))
    sheet.write("curves", kept, curves.drawings(kept), tmp_path / "one", ("png",))
    return tmp_path


def test_a_picture_without_its_numbers_is_named_and_the_others_are_drawn(folder, capsys):
    path = folder / "one" / "curves.png"
    before = path.read_bytes()
    path.write_bytes(b"old")
    (folder / "two").mkdir()
    (folder / "two" / "pareto.png").write_bytes(b"old")
    assert command.run(figures.main, [str(folder)]) == 2
    told = capsys.readouterr()
    assert told.out.split() == [str(path)]
    assert path.read_bytes() == before
    assert told.err == f"error: {folder}/two/pareto.png: not drawn: no CSV of that figure beside it\n"


def test_a_spoilt_table_is_one_line(folder, capsys):
    path = folder / "one" / "curves.csv"
    whole = path.read_text()
    for text, said in (
        (whole.replace("kept,", "left,"), "not what curves is drawn from ('kept')"),
        (whole.replace("model,", "what,"), "no column 'model'"),
        ("", "not a table (No columns to parse from file)"),
        (whole.replace("0.2,", "x,"), "not what curves is drawn from (can only concatenate"),
    ):
        path.write_text(text)
        assert command.run(figures.main, [str(folder)]) == 2
        assert capsys.readouterr().err.startswith(f"error: {path}: {said}")


def test_a_name_that_is_nothing_is_one_line(root, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert command.run(figures.main, ["nosuch", "--store", str(root)]) == 2
    assert "study='nosuch': no rows in" in capsys.readouterr().err
    assert command.run(figures.main, [str(tmp_path / "empty"), "--store", str(root)]) == 2
    assert capsys.readouterr().err.endswith("neither a study of the store nor a folder with pictures\n")


def test_a_study_of_failures_says_so(tmp_path, capsys):
    facts = synthetic_study.cell_facts("s", "svd", 0.3, 0, "nano") | {
        "state": "failed",
        "reason": "out of memory",
    }
    Store(tmp_path).put_cell("s", facts["cell"], facts)
    assert command.run(figures.main, ["s", "--store", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.endswith("error: study='s': nothing to draw\n")
    assert "Traceback" not in told


def test_every_picture_of_the_docs_has_its_numbers():
    shown = set(RESULTS.rglob("*.png"))
    held = {p / f"{stem}.png" for p in {path.parent for path in shown} for _, stem, _ in figures.held(p)}
    assert len(shown) >= 20
    assert shown - held == set()


def test_docs_are_drawn_again_as_they_are(tmp_path):
    for name in ("match_matrix.png", "match_matrix.csv", "fig2_factoid.csv"):  # the second has the colours
        shutil.copy(RESULTS / "kick_nano" / name, tmp_path / name)
    (path,) = figures.main([str(tmp_path)])
    assert compare_images(str(RESULTS / "kick_nano" / path.name), str(path), tol=3) is None


def test_tables_of_kick_are_read_as_they_were_written(tmp_path):
    told = figures.read(RESULTS / "kick_nano" / "fig2_factoid.csv")
    with sheet.on(sheet.PAGE):
        told.to_csv(tmp_path / "again.csv", index=False)
    pd.testing.assert_frame_equal(figures.read(tmp_path / "again.csv"), told)
    assert set(told["axis"]) == {"budget", "pattern", "bits"}
    assert "fig2_factoid" in kick.FIGURES


def test_a_hostile_name_is_text(tmp_path):
    data = study(("svd",), tasks=("nano_factoid",), model="../$\\frac{1}$ & <b>")
    other = study(("svd",), tasks=("nano_factoid",))
    both = pd.concat([data, other], ignore_index=True)
    table = pareto.table(both)
    paths = sheet.write("pareto", table, pareto.drawings(table), tmp_path, ("png",))
    assert {path.parent for path in paths} == {tmp_path}
    assert len(paths) == 3


if __name__ == "__main__":
    golden(GOLDEN)

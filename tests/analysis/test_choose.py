"""What fits in so many bytes and keeps the tasks that matter; and what is said where nothing does."""

import pytest
import synthetic_study
from scored_study import cell, right

from analysis import amounts, choose, command

DENSE = {"mcr": right(0), "ppl": [1.0 + 0.01 * (i % 7) for i in range(60)]}
CELLS = {  # items of 400 that are wrong, and how much is added to the perplexity's nats
    ("wanda", 0.2): (0, 0.001),
    ("svd", 0.3): (4, 0.002),
    ("rtn", 0.4): (16, 0.003),  # 4 % lost: too near to 5 % to tell
    ("gptq", 0.5): (60, 0.1),  # 15 %, and a perplexity of 1.105 times dense's
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Dense of 4 MB, and cells that lose more the smaller they are."""
    folder = tmp_path_factory.mktemp("store")
    cell(folder, "s", "dense", 0.0, DENSE)
    for (method, budget), (wrong, more) in CELLS.items():
        nats = [x + more for x in DENSE["ppl"]]
        made = folder / "artifacts" / method
        cell(folder, "s", method, budget, {"mcr": right(wrong), "ppl": nats}, DENSE, artifact=str(made))
    (folder / "artifacts" / "svd").mkdir(parents=True)
    (folder / "artifacts" / "svd" / "manifest.json").write_text("{}")
    (folder / "artifacts" / "rtn").mkdir()  # not whole
    return folder


def asked(capsys, root, *words, study="s"):
    """Exit code, what was printed, and the complaint."""
    code = command.run(choose.main, [study, "--store", str(root), *words])
    return code, *capsys.readouterr()


def named(out):
    """The first words of the lines of the table."""
    lines = out.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("───"))
    return [
        " ".join(line.split()[:2]) for line in lines[rule + 1 :] if " = " in line or line.startswith("dense ")
    ]


def test_the_best_that_fits_and_keeps_comes_first_with_its_file_or_its_command(root, capsys):
    code, out, _ = asked(capsys, root, "--max-bytes", "3.3MB", "--keep", "mcr=0.95")
    assert code == 0
    assert out.startswith("4 of 5 cells fit in 3.30 MB: 2 kept, 1 undecided, 1 lost\n")
    assert named(out) == ["wanda 0.2", "svd 0.3", "rtn 0.4"]
    assert f"\nsvd 0.3: {root}/artifacts/svd\n" in out
    assert "\nwanda 0.2: python run.py study=s_again model=nano budget=0.2 " in out
    assert "\nrtn 0.4: python run.py " in out  # a folder without a manifest is no artifact
    assert "one cell that fits is undecided" in out
    assert "svd 0.3 = 99" not in out
    assert "mcr ≥ 95 %" in out


def test_an_artifact_is_found_where_the_cache_is_now(root, tmp_path, capsys):
    (tmp_path / "artifacts" / "wanda").mkdir(parents=True)
    (tmp_path / "artifacts" / "wanda" / "manifest.json").write_text("{}")
    words = ("--max-bytes", "3.3 MB", "--keep", "mcr=0.95", "--cache", str(tmp_path), "--top", "1")
    code, out, _ = asked(capsys, root, *words)
    assert code == 0
    assert f"\nwanda 0.2: {tmp_path}/artifacts/wanda\n" in out
    assert named(out) == ["wanda 0.2"]


def test_dense_is_the_answer_where_it_fits(root, capsys):
    code, out, _ = asked(capsys, root, "--max-bytes", "4000000", "--keep", "all=0.95")
    assert code == 0
    assert named(out)[0].startswith("dense")


def test_where_nothing_keeps_the_nearest_two_are_named(root, capsys):
    code, out, _ = asked(capsys, root, "--max-bytes", "2.5MB", "--keep", "mcr=0.95,ppl=0.95")
    assert code == 1
    assert "nothing that fits in 2.50 MB keeps mcr at 0.95, ppl at 0.95" in out
    lines = out.splitlines()
    assert next(line for line in lines if line.startswith("smallest that keeps")).split()[3:5] == [
        "svd",
        "0.3",
    ]
    assert next(line for line in lines if line.startswith("best that fits")).split()[3:5] == ["rtn", "0.4"]
    code, out, _ = asked(capsys, root, "--max-bytes", "1kB", "--keep", "mcr=0.95")
    assert code == 1
    assert next(line for line in out.splitlines() if line.startswith("smallest of all")).split()[3] == "gptq"


def test_another_share_is_tested_on_the_items(root, capsys):
    code, out, _ = asked(capsys, root, "--max-bytes", "2.1MB", "--keep", "mcr=0.8", "--keep", "ppl=0.8")
    assert code == 0
    assert named(out) == ["gptq 0.5"]
    assert "ppl ≤ 120 %" in out
    code, out, _ = asked(capsys, root, "--max-bytes", "2.4MB", "--keep", "mcr=0.99")
    assert code == 1
    assert "0 kept, 0 undecided, 2 lost" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--max-bytes", "4.5Gb", "--keep", "mcr=0.95"),
            "--max-bytes='4.5Gb': no size; valid: a positive number",
        ),
        (("--max-bytes", "1GB", "--keep", "mcr"), "--keep='mcr': valid is TASK=SHARE"),
        (("--max-bytes", "1GB", "--keep", "mcr=95"), "--keep='mcr=95': valid is TASK=SHARE"),
        (("--max-bytes", "1GB", "--keep", "mcr=nan"), "--keep='mcr=nan': valid is"),
        (
            ("--max-bytes", "1GB", "--keep", "mrc=0.9"),
            "--keep='mrc': not in this study; valid: all, mcr, ppl",
        ),
        (("--max-bytes", "1GB", "--keep", "mcr=0.9", "--model", "big"), "--model='big': not in this study"),
        (("--max-bytes", "1GB", "--keep", "mcr=0.9", "--top", "0"), "--top=0: valid is 1 or more"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(root, capsys, words, said):
    code, _, err = asked(capsys, root, *words)
    assert code == 2
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("4.5GB", 4.5e9),
        (" 4.5 GiB ", 4.5 * 2**30),
        ("900MB", 9e8),
        ("1MiB", 2**20),
        ("3kB", 3000),
        ("3KiB", 3072),
        ("12", 12),
        ("12 B", 12),
        ("4.5e9", 4.5e9),
        (".5TB", 5e11),
    ],
)
def test_sizes(text, nbytes):
    assert amounts.size(text, "x") == nbytes


@pytest.mark.parametrize(
    "text", ["", "GB", "4,5GB", "-1GB", "0", "nan", "inf", "1e999", "4.5gb", "4 G B", "5ZB", "0x10"]
)
def test_what_is_no_size(text):
    with pytest.raises(amounts.AnalysisError, match="no size; valid"):
        amounts.size(text, "x")


def test_a_share_that_rows_have_no_items_for_is_refused(root, tmp_path, capsys):
    synthetic_study.put(tmp_path, "old", synthetic_study.rows(methods=("svd",), budgets=(0.1, 0.6)))
    words = ("--max-bytes", "9MB", "--keep")
    code, out, _ = asked(capsys, tmp_path, *words, "factoid=0.95", study="old")
    assert code == 0
    assert "its record does not say how it was made" in out
    code, _, err = asked(capsys, tmp_path, *words, "factoid=0.9", study="old")
    assert code == 2
    assert "has no stored items" in err
    assert err.count("\n") == 1
    code, _, err = asked(capsys, tmp_path, *words, "icra_closed=0.95", study="old")
    assert code == 2
    assert "--keep=nano_icra_closed=0.95: nothing to keep: dense is at chance there" in err


def test_draws_are_one_cell_of_the_largest_file_and_models_are_not_mixed(tmp_path, capsys):
    bad = "big\x1b[31m"
    for model in ("nano", bad):
        for method, seeds in (("dense", (0,)), ("svd", (0, 1))):
            for seed in seeds:
                parent, size = (None, 9e6) if method == "dense" else (DENSE, 1e6 + 1e6 * seed)
                facts = {
                    "model": model,
                    "calib_seed": seed,
                    "file_bytes": size,
                    "key": f"{model[0]}{method}{seed}",
                }
                cell(tmp_path, "s", method, 0.3 if parent else 0.0, {"mcr": right(0)}, parent, **facts)
    words = ("--keep", "mcr=0.95", "--max-bytes")
    code, _, err = asked(capsys, tmp_path, *words, "1MB")
    assert code == 2
    assert "name one: big\N{REPLACEMENT CHARACTER}[31m, nano" in err
    code, out, _ = asked(capsys, tmp_path, *words, "1.5MB", "--model", "nano")
    assert code == 1
    assert "smallest, and keeps" in out
    assert "svd 0.3 (draw 0 of 2): python run.py" in out

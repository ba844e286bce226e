import pandas as pd
import pytest

from analysis import collect, command, rooms
from crunchmark.store import Store

TARGET = "methods.allocate.{}.X"


def put(root, key, allocate=None, shapes=True, budget=0.3):
    names = {f"model.layers.{b}.{r}": (4, 8) for b in range(3) for r in ("self_attn.q_proj", "mlp.up_proj")}
    plan = {"rooms": {n: [16 + 8 * k, None] for k, n in enumerate(names)}}
    plan |= {"shapes": {n: list(s) for n, s in names.items()}} if shapes else {}
    config = {"method": {"align": 1}} | ({"allocate": allocate} if allocate else {})
    facts = {
        "study": "s",
        "cell": key,
        "model": "nano",
        "method": "svd" if budget else "dense",
        "budget": budget,
    }
    facts |= {"calib_seed": 0, "plan": plan, "config": config, "accounting": "bytes"}
    store = Store(root)
    store.put_cell("s", key, facts)
    row = {"task": "t", "metric": "acc", "value": 0.5, "protocol": "p", "state": "match"}
    store.put_task("s", key, "t", {"rows": [row]})


def test_shares_and_a_figure_per_study(tmp_path, capsys):
    put(tmp_path, "a" * 32)
    put(tmp_path, "b" * 32, {"_target_": TARGET.format("greedy"), "relative": True})
    put(tmp_path, "c" * 32, budget=0.0)
    assert command.run(rooms.main, ["s", "--store", str(tmp_path)]) == 0
    csv, png = capsys.readouterr().out.split()
    table = pd.read_csv(csv)
    assert list(table.columns) == list(rooms.COLUMNS)
    assert len(table) == 12
    assert table["role"].tolist()[:2] == ["self_attn.q_proj", "mlp.up_proj"]
    assert table["block"].tolist()[:6] == [0, 0, 1, 1, 2, 2]
    assert table["kept"].tolist()[:6] == [0.25, 0.375, 0.5, 0.625, 0.75, 0.875]
    assert set(table["label"]) == {"svd", "svd allocate=greedy"}
    with open(png, "rb") as file:
        assert file.read(4) == b"\x89PNG"


def test_cells_that_do_not_say_shapes_are_one_line(tmp_path, capsys):
    put(tmp_path, "a" * 32, shapes=False)
    assert command.run(rooms.main, ["s", "--store", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: plan: no cell of the study")


def test_labels_tell_allocators_and_their_knobs_apart(tmp_path):
    put(tmp_path, "a" * 32)
    put(tmp_path, "b" * 32, {"_target_": TARGET.format("owl"), "lam": 0.08, "least": 0.1})
    put(tmp_path, "c" * 32, {"_target_": TARGET.format("owl"), "lam": 0.2, "least": 0.1})
    put(tmp_path, "d" * 32, {"_target_": TARGET.format("evopress"), "generations": 40})
    labels = list(collect.load("s", tmp_path)["label"])
    assert sorted(labels) == [
        "svd",
        "svd allocate=evopress",
        "svd allocate=owl lam=0.08",
        "svd allocate=owl lam=0.2",
    ]


def test_numbers_are_white_unless_their_field_is_light():
    kept = {0.04: "white", 0.5: "white", 0.55: "white", 0.7: "black", 1.0: "black"}
    rows = [("m", "x", 0.3, 0, b, "q_proj", f"h.{b}.q_proj", share) for b, share in enumerate(kept)]
    (figure,) = rooms.draw(pd.DataFrame(rows, columns=list(rooms.COLUMNS)))
    assert [text.get_color() for text in figure.axes[0].texts] == list(kept.values())


@pytest.mark.parametrize("blocks", [6, 32])
def test_every_block_is_a_column_and_every_role_a_line(blocks):
    roles = ["attn.c_attn", "attn.c_proj", "mlp.c_proj"]
    rows = [
        ("m", label, 0.3, 0, b, r, f"h.{b}.{r}", 0.7) for label in "xy" for b in range(blocks) for r in roles
    ]
    (figure,) = rooms.draw(pd.DataFrame(rows, columns=list(rooms.COLUMNS)))
    panels = [axis for axis in figure.axes if axis.images and axis.get_xlabel() == "block"]
    assert len(panels) == 2
    assert panels[0].images[0].get_array().shape == (3, blocks)
    assert [t.get_text() for t in panels[0].get_yticklabels()] == ["c_attn", "attn.c_proj", "mlp.c_proj"]
    assert len(panels[0].texts) == (18 if blocks == 6 else 0)

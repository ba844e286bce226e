"""Made-up studies of any size, with plans and items."""

import synthetic_study

HOSTILE = "</script><img src=x onerror=alert(1)>&\"'"
ROLES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")


class Memory:
    """A store without files: cells and tasks by name."""

    def __init__(self, rows, items=40):
        self.cells, self.tasks, self.items = {}, {}, items
        for row in rows:
            self.cells[row["cell"]] = row
            if "task" in row:
                self.tasks[row["cell"], row["task"]] = row

    def get_cell(self, study, cell):
        return self.cells[cell] | {"plan": plan(self.cells[cell]["budget"]), "config": config()}

    def get_task(self, study, cell, task):
        row = self.tasks[cell, task]
        right = self.items if row["method"] == "dense" else round(self.items * 0.6)
        answers = [
            {"prediction": f"{'right' if i < right else cell} {task} {i}", "target": f"right {i}"}
            for i in range(self.items)
        ]
        scored = [[f"{task}/{i}", row["metric"], float(i < right), 1.0, a] for i, a in enumerate(answers)]
        return {"rows": [row], "items": scored}


def plan(budget, blocks=24):
    names = [f"model.layers.{b}.{role}" for b in range(blocks) for role in ROLES]
    kept = [(1 - budget) * (0.9 + 0.2 * i / len(names)) for i in range(len(names))]
    return {
        "rooms": {n: [round(2 * 64 * 64 * k), None] for n, k in zip(names, kept, strict=True)},
        "shapes": {n: [64, 64] for n in names},
    }


def config():
    method = {"_target_": "methods.svd.SVD", "align": 1}
    return {"method": method, "device": "cpu", "model": {"dtype": "auto", "compute": "float32"}}


def many(count):
    """Rows of so many cells: dense, and for each method lines of twenty budgets that differ in a knob."""
    budgets = [round(0.02 + 0.04 * i, 3) for i in range(20)]
    out, cells = synthetic_study.rows(methods=()), 1
    for knob in range(count // 20 + 1):
        name = list(synthetic_study.METHODS)[knob % 9]
        made = synthetic_study.rows(methods=(name,), budgets=budgets[: count - cells])
        mine = [row | {"knobs": f"run={knob}", "cell": f"{knob:04d}{row['cell']}"} for row in made]
        out += [row for row in mine if row["method"] != "dense"]
        cells += len({row["cell"] for row in mine}) - 1
    return out

"""Small files of the real formats, and the tasks that are asked them."""

import json
from pathlib import Path

from crunchmark.evaluate import rows
from tasks.kick.qa import KickQA

HERE = Path(__file__).parent / "data"
README = "---\nconfigs:\n" + "".join(
    f"- config_name: {name}\n  data_files:\n  - {{split: validation, path: rows.parquet}}\n"
    for name in ("rc", "rc.nocontext")
)


def trivia():
    return [json.loads(line) for line in (HERE / "trivia_rc.jsonl").read_text().splitlines()]


def store(folder, found):
    """TriviaQA's rows as a folder of the hub holds them."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    folder.mkdir(parents=True)
    Dataset.from_list(found).to_parquet(folder / "rows.parquet")
    (folder / "README.md").write_text(README + "---\n")
    return folder


def question(subject, number):
    return {
        "question": f" What is {number}?",
        "subject": subject,
        "choices": ["1", "None", "3", "4"],
        "answer": number % 4,
    }


def docs(name, **how):
    (task,) = KickQA(name, **how).tasks.values()
    return list(task.eval_docs), task


def asked(name, nano, **how):
    task = KickQA(name, **how)
    items = list(task.run(*nano))
    return {row["metric"]: row for row in rows(name, task.protocol(), items, task.metrics(), None)}, items

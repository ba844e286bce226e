import shutil

import pytest
from kick_files import HERE, question, store, trivia

from crunchmark.hub import DATA


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root with all three data sets in their layouts."""
    from datasets import Dataset

    root = tmp_path_factory.mktemp("root")
    store(root / "mandarjoshi" / "trivia_qa", trivia())
    (root / "FreebaseQA").mkdir()
    for file in HERE.glob("FreebaseQA-*.json"):
        shutil.copy(file, root / "FreebaseQA")
    folder = root / "cais" / "mmlu" / "all"
    folder.mkdir(parents=True)
    for split, count in (("test", 4), ("dev", 5)):
        asked = [question(s, n) for s in ("virology", "astronomy") for n in range(count)]
        Dataset.from_list(asked).to_parquet(folder / f"{split}.parquet")
    text = "---\nconfigs:\n- config_name: all\n  data_files:\n" + "".join(
        f"  - {{split: {split}, path: all/{split}.parquet}}\n" for split in ("test", "dev")
    )
    (folder.parent / "README.md").write_text(text + "---\n")
    return root


@pytest.fixture
def data(root, monkeypatch):
    monkeypatch.setenv(DATA, str(root))
    return root

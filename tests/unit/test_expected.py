"""What a paper got is on every row of its cell and of the parent, and decides nothing."""

from methods.svd import SVD

CLAIM = {
    **{"task": "probe", "metric": "logp", "dense": -7.6, "values": {"0.3": -8.0}, "tolerance": 0.05},
    **{"source": "arXiv:0000.00000", "status": "not attempted here"},
}


def test_a_claim_is_on_the_rows_of_the_cell_and_its_parent_and_in_no_key(runner, make):
    plain, claimed = make(SVD(), 0.3), make(SVD(), 0.3, expected=CLAIM)
    assert claimed.key == plain.key
    assert claimed.config == plain.config
    runner.run(claimed)
    rows = runner.store.rows("s")
    assert {row["method"] for row in rows} == {"dense", "svd"}
    assert all(row["expected"] == CLAIM for row in rows)
    assert all("expected" not in row for row in runner.run(make(SVD(), 0.3, study="other")))

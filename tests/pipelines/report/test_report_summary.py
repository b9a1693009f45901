import json
from typing import Any

import numpy as np
import pytest

from dr_core.errors import InputError
from pipelines.report.summary import Summary, read_summary, write_summary

KEYS = {
    "data": "users items events train_users test_users quarantined filtered",
    "structure": "K D nodes J S alpha beam price opening most m_step normaliser path_vectors search",
    "stages": "name seconds rows_in rows_out",
    "rounds": "round loss_structure loss_softmax surrogate_before surrogate_after_descent surrogate_after likelihood_before likelihood_after"
    " items_moved occupied_paths largest_path validation_recall",
    "results": "method filtered k users precision recall f1 ndcg hit_rate overlap candidates candidate_recall beam"
    " microseconds sd interval",
    "curves": "method filtered k beam candidates precision recall overlap candidate_recall multiply_adds microseconds",
    "health": "occupied_paths largest_path mean_path gini normalized_entropy items_without_path",
    "differences": "method against metric filtered k axis at mean low high",
}
"""The keys that other programs rely on; change them only with the published contract."""


def test_every_key_of_the_contract_is_written_and_no_other(fake_summary: dict[str, Any]) -> None:
    written = json.loads(write_summary(fake_summary))
    assert set(written) == {"run_id", "config_hash", "release_id", "seeds", *KEYS}
    for part, keys in KEYS.items():
        rows = written[part] if isinstance(written[part], list) else [written[part]]
        assert rows
        for row in rows:
            assert set(row) == set(keys.split())


def test_what_was_written_is_read_again(fake_summary: dict[str, Any]) -> None:
    text = write_summary(fake_summary)
    assert write_summary(read_summary(text)) == text
    assert json.loads(text)["results"][0]["precision"] == fake_summary["results"][0]["precision"]


def test_integers_stay_integers_and_means_stay_means(fake_summary: dict[str, Any]) -> None:
    fake_summary["structure"]["beam"] = 9
    fake_summary["results"][0]["beam"] = 9.5
    written = json.loads(write_summary(fake_summary))
    assert '"beam": 9,\n' in write_summary(fake_summary)
    assert written["results"][0]["beam"] == 9.5


def test_missing_and_undefined_figures_are_null() -> None:
    result = {"method": "ease", "filtered": True, "k": 10, "recall": float("nan"), "microseconds": float("inf")}
    written = json.loads(write_summary({"run_id": "r", "results": [result]}))
    assert written["results"][0]["recall"] is None
    assert written["results"][0]["microseconds"] is None
    assert written["results"][0]["interval"] is None
    assert written["health"]["gini"] is None
    assert written["curves"] == written["differences"] == []


def test_numpy_scalars_are_plain_numbers() -> None:
    result = {"method": "ease", "filtered": np.bool_(True), "k": np.int64(10), "recall": np.float32(0.5)}
    written = json.loads(write_summary({"run_id": "r", "results": [result], "data": {"users": np.int32(3)}}))
    assert written["results"][0] | {"k": 10, "filtered": True, "recall": 0.5} == written["results"][0]
    assert written["data"]["users"] == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"healt": {}}, "healt"),
        ({"results": [{"method": "ease", "filtered": True}]}, "results.0.k"),
        ({"health": {"gini": "high"}}, "health.gini"),
        ({"data": {"users": 1.5}}, "data.users"),
    ],
)
def test_a_malformed_summary_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        write_summary({"run_id": "r"} | change)


def test_text_that_is_not_json_is_refused() -> None:
    with pytest.raises(InputError, match="line 1"):
        read_summary("{")


def test_a_summary_cannot_be_changed_after_it_was_checked() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Summary(run_id="r").run_id = "other"  # type: ignore[misc]

"""What a service answers to keys as they stand in the logs."""

import json
from typing import Any

import numpy as np
import pytest

from dr_core.errors import InputError
from pipelines.serving import open_release
from pipelines.serving.item_keys import ItemKeys, Texts
from pipelines.serving.request import Request
from pipelines.serving.service import Service
from tests.pipelines.serving.conftest import BEAM, KEYS, NUM_ITEMS, Published, publish


def test_an_answer_has_what_machines_and_people_read(published: Published) -> None:
    history = [KEYS[3], "nowhere", KEYS[0]]
    answer = Request(published.folder.uri, k=5).for_history(history, explain=True)
    document = answer.document
    assert (document["release_id"], document["beam"], document["unknown"]) == ("r-2", BEAM, ["nowhere"])
    assert document["history"] == history
    assert len(document["items"]) == 5
    model = published.models["r-2"]
    for rank, item in enumerate(document["items"]):
        item_id = KEYS.index(item["item_key"])
        assert set(item) == {"rank", "item_key", "title", "category", "score", "path", "path_id", "path_probability"}
        assert (item["rank"], item["title"]) == (rank, f"Title {item_id}" if item_id % 3 else None)
        assert item["path_id"] in model.placement.path_VJ[item_id].tolist()
        assert model.space.decode(item["path_id"]).tolist() == item["path"]
        assert item["item_key"] not in history
    scores = [item["score"] for item in document["items"]]
    assert scores == sorted(scores, reverse=True)
    assert len(document["paths"]) == BEAM
    for path in document["paths"]:
        held = {KEYS[item] for item in published.indexes["r-2"].items(path["path_id"])}
        assert path["size"] == path["visited"] == len(held)
        assert {item["item_key"] for item in path["items"]} <= held
    assert "unknown items left out: nowhere" in answer.text
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_a_history_without_a_known_item_has_no_items_and_a_reason(published: Published) -> None:
    plain, unknown, empty = open_release(published.folder.uri).recommend([[KEYS[1]], ["x", KEYS[NUM_ITEMS]], []])
    assert plain.document["items"]
    assert "reason" not in plain.document
    for answer, keys in ((unknown, ["x", KEYS[NUM_ITEMS]]), (empty, [])):
        assert answer.document["items"] == []
        assert (answer.document["unknown"], answer.document["candidates"]) == (keys, 0)
        assert answer.document["reason"] == "no item of the history is known"
    with pytest.raises(InputError, match="none of the 1 items"):
        Request(published.folder.uri).for_history(["x"])


def test_blocked_and_allowed_keys(published: Published) -> None:
    service = Service(published.folder)
    allowed = [KEYS[item] for item in (1, 8, 22)]
    answer = service.recommend([[KEYS[1]]], 5, keep_history=True, blocked=[KEYS[8]], allowed=[*allowed, "a"])[0]
    assert {item["item_key"] for item in answer.document["items"]} == {KEYS[1], KEYS[22]}
    assert answer.document["unknown_allowed"] == ["a"]
    paths = service.explain([KEYS[1]], allowed=allowed).document["paths"]
    assert {item["item_key"] for path in paths for item in path["items"]} == set(allowed)
    assert service.recommend([[KEYS[1]]], allowed=[])[0].document["items"] == []


def test_a_history_is_left_out_unless_the_release_or_the_caller_keeps_it(published: Published) -> None:
    publish(published.folder, "r-7", published.models["r-2"], "candidate", filter_history=False)
    history = KEYS[:20]
    for release, keep, is_kept in (
        ("r-2", None, False),
        ("r-2", True, True),
        ("r-7", None, True),
        ("r-7", False, False),
    ):
        (answer,) = Service(published.folder, release, beam=16).recommend([history], 40, keep_history=keep)
        found = {item["item_key"] for item in answer.document["items"]}
        assert found == set(KEYS[:NUM_ITEMS] if is_kept else KEYS[20:NUM_ITEMS])


def test_a_blocked_key_that_is_unknown_is_refused_unless_it_may_be(published: Published) -> None:
    """A typing error in a block list would let through what it was to keep back."""
    service, block = Service(published.folder), [KEYS[8], "b", *map(str, range(900, 906))]
    with pytest.raises(InputError, match="r-2 does not know 7 of 8 blocked items: b, 900, 901, 902, 903 and 2 more"):
        service.recommend([[KEYS[1]]], blocked=block)
    answer = service.recommend([[KEYS[1]]], 40, blocked=block, ignore_unknown_blocked=True)[0]
    assert answer.document["unknown_blocked"] == block[1:]
    assert KEYS[8] not in {item["item_key"] for item in answer.document["items"]}
    assert "unknown blocked items left out: b, 900" in answer.text


def test_keys_given_as_numbers_are_the_keys_of_the_log(published: Published) -> None:
    numbers = [key for key in KEYS[:NUM_ITEMS] if key.isdigit()][:3]
    service = Service(published.folder)
    expected = service.recommend([numbers[:2]], 40, blocked=numbers[2:])[0].document
    forms: list[Any] = [
        [int(key) for key in numbers], [float(key) for key in numbers], [f"{key}.0" for key in numbers],
        [f" {key} " for key in numbers], np.array(numbers, np.int64), np.array(numbers, np.float32), tuple(numbers),
    ]  # fmt: skip
    for given in forms:
        found = service.recommend([given[:2]], 40, blocked=given[2:])[0].document
        assert found["items"] == expected["items"]
        assert found["unknown"] == []
        assert numbers[2] not in {item["item_key"] for item in found["items"]}


def test_a_key_stands_for_itself_before_it_stands_for_another() -> None:
    texts = ["1.0", "1", " 1", "007"]
    offsets = np.cumsum([0, *map(len, texts)])
    keys = ItemKeys(Texts(np.frombuffer("".join(texts).encode(), np.uint8), offsets), np.array([2, 3, 1, 0], np.int32))
    assert keys.ids(["1.0", "1", " 1", "1.00", "1 ", "7", "7.0", "1.5", "01", "007"]) == (
        [0, 1, 2, 1, 1, 3],
        ["7", "7.0", "1.5", "01"],
    )


def test_what_is_no_list_of_keys_is_refused(published: Published) -> None:
    service = Service(published.folder)
    wrong: list[tuple[Any, str]] = [
        ("318,1196", "no list of histories"), (["318,1196"], "history 0: '318,1196' is no list"), ([["1"], "23"], "history 1"),
        ([{"1": 2}], "no list"), ([[None]], "None is no key"), ([[True]], "True is no key"), ([[1.5]], "1.5 is no key"),
        ([[float("nan")]], "nan is no key"), ([[2.0**60]], "is no key"), ([[["1"]]], "is no key"), ([3], "3 is no list"),
        ([["\ud800"]], "is no key"), ([[np.True_]], "is no key"),
    ]  # fmt: skip
    for histories, word in wrong:
        with pytest.raises(InputError, match=word):
            service.recommend(histories)
    for option in ("blocked", "allowed"):
        with pytest.raises(InputError, match=f"{option}: '2385' is no list"):
            service.recommend([[KEYS[1]]], **{option: "2385"})


def test_fewer_items_than_wanted_are_said(published: Published) -> None:
    service, history = Service(published.folder), [KEYS[1]]
    narrow = service.recommend([history], 500)[0]
    returned = narrow.document["returned"]
    assert 0 < returned == len(narrow.document["items"]) < NUM_ITEMS - 1
    assert (narrow.document["wanted"], narrow.document["note"]) == (
        500,
        f"{returned} of 500 items: ask for more paths: --beam",
    )
    assert narrow.document["note"] in narrow.text
    wide = Service(published.folder, beam=16).recommend([history], 500)[0]
    assert (wide.document["returned"], wide.document["note"]) == (39, "39 of 500 items: there are no more")
    few = service.recommend([history], 5, allowed=KEYS[2:5])[0].document
    assert (few["returned"], few["note"]) == (3, "3 of 5 items: there are no more")
    full = service.recommend([history], 5)[0]
    assert (full.document["wanted"], full.document["returned"]) == (5, 5)
    assert "note" not in full.document

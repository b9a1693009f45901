"""What a service answers to keys as they stand in the logs."""

import json
from pathlib import Path

import pytest

from dr_core.errors import InputError
from pipelines.serving import open_release
from pipelines.serving.service import Service, retrieve_history, retrieve_users
from pipelines.serving.user_files import write_lines
from tests.pipelines.serving.conftest import BEAM, KEYS, NUM_ITEMS, Published

DEFAULTS = {"k": 5, "beam": None, "release_id": None, "keep_history": False, "blocked": ()}


def test_an_answer_has_what_machines_and_people_read(published: Published) -> None:
    history = [KEYS[3], "nowhere", KEYS[0]]
    answer = retrieve_history(published.folder.uri, history, explain=True, **DEFAULTS)
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
        assert path["size"] == len(held)
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
        retrieve_history(published.folder.uri, ["x"], explain=False, **DEFAULTS)


def test_blocked_and_allowed_keys(published: Published) -> None:
    service = Service(published.folder)
    allowed = [KEYS[item] for item in (1, 8, 22)]
    answer = service.recommend([[KEYS[1]]], 5, keep_history=True, blocked=[KEYS[8], "b"], allowed=[*allowed, "a"])[0]
    assert {item["item_key"] for item in answer.document["items"]} == {KEYS[1], KEYS[22]}
    assert answer.document["unknown_blocked"] == ["b"]
    assert answer.document["unknown_allowed"] == ["a"]
    assert "unknown blocked items left out: b" in answer.text
    paths = service.explain([KEYS[1]], allowed=allowed).document["paths"]
    assert {item["item_key"] for path in paths for item in path["items"]} == set(allowed)
    assert service.recommend([[KEYS[1]]], allowed=[])[0].document["items"] == []


def test_users_of_a_file_get_what_they_get_alone(published: Published, tmp_path: Path) -> None:
    users = {f"u{number}": [KEYS[number % NUM_ITEMS], KEYS[(5 * number) % NUM_ITEMS]] for number in range(300)}
    lines = [json.dumps({"user": user, "history": history}) for user, history in users.items()]
    lines[100:100] = ["", json.dumps({"user": 7, "history": ["x", "y"]})]
    (tmp_path / "users").write_text("\n".join(lines))
    assert retrieve_users(published.folder.uri, str(tmp_path / "users"), str(tmp_path / "out"), **DEFAULTS) == 301
    rows = {row["user"]: row for row in map(json.loads, (tmp_path / "out").read_text().splitlines())}
    assert rows.pop("7") == {"user": "7", "items": [], "unknown": 2, "reason": "no item of the history is known"}
    service = Service(published.folder)
    for user in ("u0", "u255", "u256", "u299"):
        alone = service.recommend([users[user]], 5)[0].document["items"]
        assert [item["item_key"] for item in rows[user]["items"]] == [item["item_key"] for item in alone]
        assert rows[user]["items"][0]["score"] == pytest.approx(alone[0]["score"], abs=2e-4)
    assert list(tmp_path.glob("*.tmp")) == []


@pytest.mark.parametrize(
    "line",
    ["not json", "[]", '{"user": "u"}', '{"history": []}', '{"user": "u", "history": "123"}', '{"user": "u", "history": 3}',
     '{"user": "u", "history": [null]}', '{"user": "u", "history": [["1"]]}', '{"user": null, "history": []}',
     '{"user": "u", "history": {"1": 2}}', '{"user": "u", "history": [true]}'],
)  # fmt: skip
def test_a_malformed_line_is_named_and_no_file_is_written(published: Published, tmp_path: Path, line: str) -> None:
    (tmp_path / "users").write_text('{"user": "u", "history": ["1"]}\n' + line)
    (tmp_path / "out").write_text("of yesterday")
    with pytest.raises(InputError, match="line 2"):
        retrieve_users(published.folder.uri, str(tmp_path / "users"), str(tmp_path / "out"), **DEFAULTS)
    assert (tmp_path / "out").read_text() == "of yesterday"
    with pytest.raises(InputError, match="does not exist"):
        retrieve_users(published.folder.uri, str(tmp_path / "nowhere"), str(tmp_path / "out"), **DEFAULTS)


def test_an_interrupted_file_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("of yesterday")
    with pytest.raises(KeyboardInterrupt), write_lines(str(target)) as write:
        write({"user": "u"})
        raise KeyboardInterrupt
    assert target.read_text() == "of yesterday"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["out"]

"""``dr init`` proposes what a log's columns hold, by names and contents, and says what it cannot tell."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from deltalake import write_deltalake

from pipelines.cli.commented_yaml import render
from pipelines.cli.main import main
from pipelines.cli.proposal import Proposal, propose
from pipelines.config.load import load_config

USERS, ITEMS, BEGIN = 40, 25, 1_704_067_200
Row = tuple[int, int, int, int]


def log() -> list[Row]:
    """User, item, stars, second: 12 events of each of 40 users, with 25 items, over four weeks; a user's rows together."""
    rng = random.Random(3)
    return [
        (user, item, rng.choice((1, 2, 3, 4, 5, 5)), BEGIN + step * 172_800 + user * 997 + item)
        for user in range(USERS)
        for step, item in enumerate(rng.sample(range(ITEMS), 12))
    ]


ROWS = log()


def text(file: Path, header: str, line: Callable[..., str]) -> str:
    lines = [*([header] if header else []), *(line(*row) for row in ROWS)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


def asin(item: int) -> str:
    return f"B{item:09d}"


def moment(second: int, pattern: str) -> str:
    return pd.Timestamp(second, unit="s").strftime(pattern)


KINDS = ("pv", "pv", "cart", "fav", "buy")
MADE: dict[str, tuple[Callable[[Path], str], dict[str, str], dict[str, Any]]] = {
    "plain csv": (
        lambda path: text(path / "log.csv", "user,item,rating,timestamp", lambda u, v, r, t: f"u{u},i{v},{r},{t}"),
        {"user": "user", "item": "item", "time": "timestamp", "rating": "rating"},
        {"format": "csv", "delimiter": "comma", "time_unit": "seconds"},
    ),
    "other order, semicolons": (
        lambda path: text(path / "log.csv", "article;when;kundin;customer", lambda u, v, r, t: f"{v};{t};x;{u}"),
        {"user": "customer", "item": "article", "time": "when"},
        {"delimiter": "semicolon", "time_unit": "seconds"},
    ),
    "tab separated, ISO, play counts": (
        lambda path: text(
            path / "plays.tsv",
            "listener\ttrack\tplays\tplayed_at",
            lambda u, v, r, t: f"L{u}\tT{v}\t{3 * r + t % 7}\t{moment(t, '%Y-%m-%dT%H:%M:%SZ')}",
        ),
        {"user": "listener", "item": "track", "time": "played_at", "weight": "plays"},
        {"delimiter": "tab", "time_unit": "timestamp"},
    ),
    "microseconds, camel case, flag": (
        lambda path: text(
            path / "clicks.csv",
            "sessionId,productId,isClicked,ts",
            lambda u, v, r, t: f"{u},{v},{int(r > 3)},{t}000000",
        ),
        {"user": "sessionId", "item": "productId", "time": "ts", "label": "isClicked"},
        {"time_unit": "microseconds"},
    ),
    "names that say nothing of users": (
        lambda path: text(path / "log.csv", "who,sku,day", lambda u, v, r, t: f"p{u},{v},{moment(t, '%Y-%m-%d')}"),
        {"user": "who", "item": "sku", "time": "day"},
        {"time_unit": "timestamp"},
    ),
    "ids as long as times": (
        lambda path: text(
            path / "log.csv",
            "user_id,item_id,time",
            lambda u, v, r, t: f"{1_500_000_000 + u * 31},{1_600_000_000 + v * 17},{t}",
        ),
        {"user": "user_id", "item": "item_id", "time": "time"},
        {"time_unit": "seconds"},
    ),
    "compact dates": (
        lambda path: text(path / "log.csv", "uid,sku,date", lambda u, v, r, t: f"{u},{v},{moment(t, '%Y%m%d')}"),
        {"user": "uid", "item": "sku", "time": "date"},
        {"time_format": "yyyyMMdd"},
    ),
    "German moments": (
        lambda path: text(
            path / "log.csv", "user;item;zeit_at", lambda u, v, r, t: f"{u};{v};{moment(t, '%d.%m.%Y %H:%M')}"
        ),
        {"user": "user", "item": "item", "time": "zeit_at"},
        {"time_format": "dd.MM.yyyy HH:mm"},
    ),
    "UserBehavior": (
        lambda path: text(
            path / "UserBehavior.csv",
            "",
            lambda u, v, r, t: f"{1000 + u * 17},{2_000_000 + v * 31},{300 + v % 4},{KINDS[t % 5]},{t - 190_000_000}",
        ),
        {"user": "user", "item": "item", "time": "time"},
        {"column_names": ["user", "item", "_3", "_4", "time"], "time_unit": "seconds"},
    ),
    "item before user, no header": (
        lambda path: text(path / "log.csv", "", lambda u, v, r, t: f"{v},{u},{t}"),
        {"user": "user", "item": "item", "time": "time"},
        {"column_names": ["item", "user", "time"]},
    ),
    "JSON lines, nested": (
        lambda path: text(
            path / "events.jsonl",
            "",
            lambda u, v, r, t: json.dumps({"ts": t * 1000, "payload": {"member": f"m{u}", "product": f"p{v}"}}),
        ),
        {"user": "payload.member", "item": "payload.product", "time": "ts"},
        {"format": "json", "time_unit": "milliseconds"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MADE)
def test_columns_and_units_are_proposed(kind: str, tmp_path: Path) -> None:
    make, columns, settings = MADE[kind]
    proposal = propose(make(tmp_path), None, "my")
    dataset = proposal.tree["dataset"]
    year = "2017" if kind == "UserBehavior" else "2024"
    assert proposal.notes["preprocess.partition_unit"].startswith(f"events from {year}-")
    assert proposal.tree["preprocess"]["partition_unit"] == "day"
    assert dataset["columns"] == columns
    assert {key: dataset.get(key) for key in settings} == settings
    assert (proposal.facts["users"], proposal.facts["items"]) == (USERS, ITEMS)


def test_a_files_own_types_are_used(tmp_path: Path) -> None:
    users, items, stars, seconds = (list(column) for column in zip(*ROWS, strict=True))
    frame = pd.DataFrame(
        {
            "userId": [*map(float, users)],
            "movieId": items,
            "rating": np.array(stars, dtype=float),
            "timestamp": pd.to_datetime(seconds, unit="s").astype("datetime64[ns]"),
            "tags": [["a"]] * len(users),
        }
    )
    frame.to_parquet(tmp_path / "ns.parquet")
    dataset = propose(str(tmp_path / "ns.parquet"), None, "my").tree["dataset"]
    assert dataset["columns"] == {"user": "userId", "item": "movieId", "time": "timestamp", "rating": "rating"}
    assert dataset["time_unit"] == "timestamp"
    write_deltalake(str(tmp_path / "table"), frame[["userId", "movieId", "rating"]].assign(at=seconds))
    dataset = propose(str(tmp_path / "table"), None, "my").tree["dataset"]
    assert (dataset["format"], dataset["columns"]["time"], dataset["time_unit"]) == ("delta", "at", "seconds")


def test_original_files_of_public_data_sets_are_known(tmp_path: Path) -> None:
    (tmp_path / "ml").mkdir()
    text(tmp_path / "ml" / "ratings.dat", "", lambda u, v, r, t: f"{u + 1}::{v + 1}::{r}::{t - 700_000_000}")
    (tmp_path / "ml" / "movies.dat").write_text("1::Film (1999)::Drama\n")
    for path in (tmp_path / "ml", tmp_path / "ml" / "ratings.dat"):
        proposal = propose(str(path), None, "my")
        assert proposal.tree["dataset"] == {"format": "movielens", "time_unit": "seconds"}
        assert proposal.tree["preprocess"]["positive"] == {"kind": "threshold", "column": "rating", "at_least": 4}
    header = "user_id,parent_asin,rating,timestamp"
    path = text(tmp_path / "Books.csv", header, lambda u, v, r, t: f"AE{u:026d},{asin(v)},{r}.0,{t}123")
    assert propose(path, None, "my").tree["dataset"] == {"format": "amazon", "time_unit": "milliseconds"}
    path = text(tmp_path / "Toys.csv", "", lambda u, v, r, t: f"{asin(v)},A{u:013d}X,{r}.0,{t}")
    proposal = propose(path, None, "my")
    assert proposal.tree["dataset"] == {"format": "amazon", "time_unit": "seconds"}
    assert (proposal.facts["users"], proposal.facts["items"]) == (USERS, ITEMS)


@pytest.mark.parametrize(
    ("scale", "at_least"),
    [((1, 2, 3, 4, 5), 4), ((0.5, 2, 3.5, 4.5, 5), 4), ((1, 3, 5, 8, 10), 7), ((0, 25, 50, 75, 100), 70)],
)
def test_good_ratings_are_the_upper_part_of_their_scale(
    scale: tuple[float, ...], at_least: int, tmp_path: Path
) -> None:
    path = text(tmp_path / "log.csv", "user,item,score,time", lambda u, v, r, t: f"{u},{v},{scale[r - 1]},{t}")
    proposal = propose(path, None, "my")
    assert proposal.tree["preprocess"]["positive"] == {"kind": "threshold", "column": "rating", "at_least": at_least}


def test_a_flag_is_no_rating_and_counts_weigh(tmp_path: Path) -> None:
    make, _, _ = MADE["microseconds, camel case, flag"]
    assert propose(make(tmp_path), None, "my").tree["preprocess"]["positive"] == {"kind": "flag", "column": "label"}
    make, _, _ = MADE["tab separated, ISO, play counts"]
    preprocess = propose(make(tmp_path), None, "my").tree["preprocess"]
    assert preprocess["positive"] == {"kind": "all"}
    assert preprocess["weight"] == {"kind": "column", "column": "weight", "minimum": 1.0, "maximum": 21.0}


UNSURE = {
    "a user that never comes twice": (
        "user,item,time", lambda u, v, r, t: f"{t}x{v},{v},{t}",
        "which column is the user: user can be none, no value comes twice", "dataset.columns.user",
    ),
    "an item that is always the same": (
        "user,item,time", lambda u, v, r, t: f"{u},all,{t}",
        "which column is the item: item can be none, all its values are 'all'", "dataset.columns.item",
    ),
    "days and months with a slash": (
        "user,item,date", lambda u, v, r, t: f"{u},{v},{moment(t, '%m/%d/%Y')}",
        "how the times in column date are written", "dataset.columns.time",
    ),
    "two times": (
        "user,item,order_date,ship_date", lambda u, v, r, t: f"{u},{v},{moment(t, '%Y-%m-%d')},{moment(t + 9**6, '%Y-%m-%d')}",
        "which time counts", "dataset.columns.time",
    ),
    "no time": ("user,item", lambda u, v, r, t: f"{u},{v}", "in which order events happened", "dataset.columns.time"),
    "two keys without names": ("a,b,time", lambda u, v, r, t: f"{u},{v},{t}", "which of a (40 distinct) and b (25", "dataset.columns.user"),
    "kinds of event": (
        "user,item,event,time", lambda u, v, r, t: f"{u},{v},{KINDS[t % 5]},{t}",
        "which kinds of event in column event (buy, cart, fav, pv) are positives", "the log itself",
    ),
    "a flag of unknown meaning": (
        "user,item,mobile,time", lambda u, v, r, t: f"{u},{v},{t % 2},{t}",
        "whether column mobile (0 or 1) marks the rows", "dataset.columns.label",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNSURE)
def test_what_cannot_be_told_is_said_with_its_setting(kind: str, tmp_path: Path) -> None:
    header, line, words, setting = UNSURE[kind]
    unsure = propose(text(tmp_path / "log.csv", header, line), None, "my").unsure
    said = [doubt for doubt in unsure if words in doubt.sentence]
    assert said, unsure
    assert said[0].setting.startswith(setting)


def test_text_that_is_no_utf_8_keeps_its_ids_apart(tmp_path: Path) -> None:
    names = ("Café", "Cafè", "Björk", "Bjärk", "Müm", "Mäm")
    lines = ["user;artist;time", *(f"u{at % 9};{names[at % 6]};{BEGIN + at}" for at in range(90))]
    (tmp_path / "plays.csv").write_bytes("\n".join(lines).encode("latin-1"))
    proposal = propose(str(tmp_path / "plays.csv"), None, "my")
    assert proposal.facts["items"] == 6
    assert proposal.tree["dataset"]["encoding"] == "cp1252"
    assert "cp1252 is taken" in proposal.unsure[0].sentence


def test_parts_of_a_file_and_other_orders_of_columns_are_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    text(tmp_path / "log" / "a.csv", "user,item,time", lambda u, v, r, t: f"u{u},i{v},{t}")
    text(tmp_path / "log" / "b.csv", "item,time,user", lambda u, v, r, t: f"i{v},{t + 9},u{u}")
    text(tmp_path / "log" / "c.csv", "", lambda u, v, r, t: f"u{u},i{v},{t + 99}")
    facts = propose(str(tmp_path / "log"), None, "my").facts
    assert (facts["rows"], facts["users"], facts["items"]) == (3 * len(ROWS), USERS, ITEMS)


def test_a_time_of_0_is_no_part_of_the_span(tmp_path: Path) -> None:
    path = text(tmp_path / "log.csv", "user,item,time", lambda u, v, r, t: f"{u},{v},{t if u else 0}")
    assert propose(path, None, "my").tree["preprocess"]["partition_unit"] == "day"


def test_rows_that_repeat_are_kept_and_repeated_items_recommended(tmp_path: Path) -> None:
    path = text(
        tmp_path / "log.csv",
        "user,item,day",
        lambda u, v, r, t: f"{u},{v},2024-01-0{1 + v % 9}\n" * 2 + f"{u},{v},2024-02-01",
    )
    proposal = propose(path, None, "my")
    assert proposal.tree["preprocess"]["duplicate_rows"] == "keep"
    assert proposal.tree["serving"] == {"filter_history": False}
    assert any("repeat another" in doubt.sentence for doubt in proposal.unsure)


@pytest.mark.parametrize(("days", "unit"), [(1, "day"), (60, "month"), (9000 // 12, "year")])
def test_partitions_follow_the_span(days: int, unit: str, tmp_path: Path) -> None:
    begin = 631_152_000
    path = text(
        tmp_path / "log.csv",
        "user,item,time",
        lambda u, v, r, t: f"{u},{v},{begin + (t - BEGIN) // 172_800 * days * 86_400}",
    )
    assert propose(path, None, "my").tree["preprocess"]["partition_unit"] == unit


def test_held_out_users_are_fewer_than_there_are(tmp_path: Path) -> None:
    make, _, _ = MADE["plain csv"]
    split = propose(make(tmp_path), None, "my").tree["split"]
    assert 1 <= split["num_test"] + split["num_validation"] < USERS / 2
    path = text(tmp_path / "short.csv", "user,item,time", lambda u, v, r, t: f"{u * 12 + v // 3},{v},{t}")
    split = propose(path, None, "my").tree["split"]
    users = pd.read_csv(path)["user"].value_counts()
    assert 1 <= split["num_test"] + split["num_validation"] <= int((users >= split["min_events"]).sum())


def test_a_catalogues_ids_are_found_by_contents(tmp_path: Path) -> None:
    make, _, _ = MADE["plain csv"]
    logs = make(tmp_path)
    lines = ["item,sku,title,brand", *(f"{900 + item},i{item},Film {item},B{item % 3}" for item in range(ITEMS))]
    (tmp_path / "items.csv").write_text("\n".join(lines) + "\n")
    proposal = propose(logs, str(tmp_path / "items.csv"), "my")
    assert proposal.tree["dataset"]["catalogue_columns"] == {"item": "sku", "title": "title", "creator": "brand"}
    (tmp_path / "others.csv").write_text("item,title\n" + "".join(f"x{item},Film\n" for item in range(30)))
    proposal = propose(logs, str(tmp_path / "others.csv"), "my")
    assert any(doubt.setting == "dataset.catalogue_columns.item" for doubt in proposal.unsure)


def test_the_file_loads_says_why_and_is_not_written_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logs = text(tmp_path / "log.csv", "user,item,rating,mobile,time", lambda u, v, r, t: f"{u},{v},{r},{t % 2},{t}")
    out = str(tmp_path / "my log.yaml")
    assert main(["init", "--logs", logs, "--out", out, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    config = load_config(out)
    assert config.name == "my_log"
    assert config.dataset.columns.rating == "rating"
    assert config.preprocess.positive.kind == "threshold"
    lines = Path(out).read_text().splitlines()
    assert lines[1].endswith(f"dr run --config {out} --logs {logs}")
    assert any("40 distinct, 12.0 rows each" in line for line in lines)
    assert document["proposal"]["dataset"]["columns"]["user"] == "user"
    assert main(["init", "--logs", logs, "--out", out]) == 2
    assert "is there already" in capfd.readouterr().err
    assert main(["init", "--logs", logs, "--out", out, "--force"]) == 0
    assert main(["init", "--logs", logs, "--out", str(tmp_path)]) == 2
    assert main(["init", "--logs", str(tmp_path / "none.csv"), "--out", str(tmp_path / "b.yaml")]) == 2
    assert not (tmp_path / "b.yaml").exists()


def test_doubts_name_the_line_to_fill_in(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    header, line, _, _ = UNSURE["an item that is always the same"]
    out = tmp_path / "my.yaml"
    assert main(["init", "--logs", text(tmp_path / "log.csv", header, line), "--out", str(out)]) == 0
    (doubt,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("could not tell")]
    number = int(doubt.partition(f"{out}:")[2].partition(",")[0])
    assert out.read_text().splitlines()[number - 1].strip().startswith("item: item  # FILL IN")


def test_values_that_yaml_would_take_for_others_are_quoted() -> None:
    proposal = Proposal()
    for number, name in enumerate(("yes", "1", "a: b", "#x", "~", "Künstler")):
        proposal.set(f"dataset.columns.c{number}", name, "a note")
    written, places = render(proposal, ["heading"])
    import yaml

    assert list(yaml.safe_load(written)["dataset"]["columns"].values()) == ["yes", "1", "a: b", "#x", "~", "Künstler"]
    assert written.splitlines()[places["dataset.columns.c0"] - 1].strip() == "c0: 'yes'  # a note"

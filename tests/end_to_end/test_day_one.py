"""The whole loop on a tiny world: what it leaves, what a second run changes, what a kill changes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipelines.cli.main import main
from pipelines.evaluation.measurement import Measurement
from pipelines.experiments.baselines import BASELINES, families
from pipelines.experiments.studies import STUDIES
from pipelines.report.summary import read_summary
from pipelines.storage.faults import VARIABLE
from pipelines.storage.workdir import Workdir
from tests.end_to_end.world import CONFIG, FIRST, SCRIPT, TinyWorld

RunAttached = Callable[..., tuple[int, str]]
Contents = Callable[..., pd.DataFrame]
KILLED_AT = ("samples:after", "scores_1:after", "assign_2:before", "publish:after")
SWEPT: dict[str, list[Any]] = {
    "beam": [1, 4],
    "nodes": [9],
    "layers": [3],
    "paths_per_item": [1],
    "alpha": [0, 100],
    "candidate_paths": [2],
    "rounds": [0],
    "random_start": [1],
    "mean_path": [2],
    "assignment": ["best path", "descent"],
    "assignment_random": ["descent"],
    "encoder": ["mean"],
    "coherence": ["learned", "shuffled"],
    "two_tower": ["plain@0.1"],
}
CONTROLS = {
    "deep_retrieval",
    "deep_retrieval_paths_only",
    "brute_force",
    "random_paths",
    "embedding_paths",
    "exact_candidates",
    "popular_candidates",
    "random_candidates",
    "popularity",
    "deep_retrieval_j1",
    "deep_retrieval_random_start",
}


MOMENTS = (FIRST.start.isoformat(), FIRST.end.isoformat())


@pytest.fixture
def finished(tiny_world: TinyWorld) -> Path:
    """The shared work folder after day one: not to be changed."""
    return tiny_world.workdir


@pytest.fixture(scope="module")
def command(tiny_world: TinyWorld) -> list[str]:
    """The words that name the finished run once more, but for its work folder."""
    return ["--config", CONFIG, "--logs", tiny_world.logs["first"], "--start", MOMENTS[0], "--end", MOMENTS[1]]


@pytest.fixture
def day_one(tiny_world: TinyWorld) -> tuple[str, ...]:
    """The words that follow the work folder where it is run by a script."""
    return (tiny_world.logs["first"], *MOMENTS, "first")


def release_of(workdir: Path) -> str:
    release_id = json.loads((workdir / "report" / "summary.json").read_text())["release_id"]
    assert isinstance(release_id, str)
    return release_id


def test_summary_has_every_method_round_and_curve(contents: Contents, finished: Path) -> None:
    summary = read_summary((finished / "report" / "summary.json").read_text())
    assert {row.method for row in summary.results} == CONTROLS
    assert {(row.filtered, row.k) for row in summary.results} == {(True, 5), (True, 10), (False, 5), (False, 10)}
    assert [row.round for row in summary.rounds] == [1, 2]
    record = json.loads((finished / "runs" / f"{summary.run_id}.json").read_text())
    done = {stage["name"]: stage["result"] for stage in record["stages"]}
    for row in summary.rounds:
        assigned = done[f"assign_{row.round}"]
        assert (row.surrogate_before, row.surrogate_after) == (
            assigned["surrogate_before"],
            assigned["surrogate_after"],
        )
        assert assigned["surrogate_after_descent"] >= assigned["surrogate_before"], "the descent never lowers it"
        assert assigned["items_refined"] > 0 or assigned["surrogate_after"] == assigned["surrogate_after_descent"]
    assert summary.rounds[0].items_moved
    assert summary.data.quarantined == 0
    assert summary.health.items_without_path == 0
    assert {row.method for row in summary.curves} >= CONTROLS - {"deep_retrieval_paths_only", "popularity"}
    brute = next(row for row in summary.results if row.method == "brute_force")
    assert brute.overlap == 1.0
    assert brute.candidates == len(contents(finished, "items"))


def test_widest_beam_is_brute_force(finished: Path) -> None:
    summary = read_summary((finished / "report" / "summary.json").read_text())
    exact = [row for row in summary.curves if row.method == "exact_candidates" and row.k == 5 and not row.filtered]
    assert max(exact, key=lambda row: row.candidates or 0).overlap == 1.0
    own = [row for row in summary.curves if row.method == "deep_retrieval" and row.k == 5 and row.filtered]
    recalls = [row.candidate_recall or 0.0 for row in sorted(own, key=lambda row: row.beam or 0)]
    assert recalls[-1] >= recalls[0]
    served = next(row for row in summary.results if row.method == "deep_retrieval" and row.k == 5 and row.filtered)
    assert [row.candidates for row in own if row.beam == served.beam] == [served.candidates], "its cost is in the curve"


def test_index_is_the_inverse_of_the_mapping(contents: Contents, finished: Path) -> None:
    release_id = release_of(finished)
    paths, index = (contents(finished, name) for name in ("item_paths", "path_items"))
    paths, index = (frame[frame["release_id"] == release_id] for frame in (paths, index))
    active = set(contents(finished, "items").query("active")["item_id"])
    forward = {(row.item_id, row.path_id) for row in paths.itertuples() if row.item_id in active}
    inverse = {(item, row.path_id) for row in index.itertuples() for item in row.item_ids}
    assert forward == inverse
    assert (paths.groupby("item_id")["path_id"].nunique() == 2).all()


def test_held_out_users_are_in_no_sample(spark: SparkSession, contents: Contents, finished: Path) -> None:
    held = set(contents(finished, "evaluation_users")["user"])
    for name in ("samples", "mixed_samples"):
        trained = {row.user for row in spark.read.parquet(str(finished / "tables" / name)).select("user").collect()}
        assert trained
        assert not trained & held


def test_a_finished_run_changes_nothing(run_attached: RunAttached, finished: Path, day_one: tuple[str, ...]) -> None:
    before = (finished / "report" / "summary.json").read_bytes()
    code, log = run_attached(SCRIPT, str(finished), *day_one)
    assert code == 0
    assert "is finished" in log
    assert (finished / "report" / "summary.json").read_bytes() == before


def kill_with_its_jvm(workdir: Path, day_one: tuple[str, ...], once_there: str) -> None:
    """Start a run with a JVM of its own, and kill both as soon as something is there in its work folder."""
    root = str(Path(CONFIG).parents[2])
    command = [sys.executable, str(SCRIPT), str(workdir), *day_one]
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    log = workdir.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=root, env=environment, start_new_session=True)
        while not (workdir / once_there).exists():
            assert process.poll() is None, log.read_text()[-4000:]
            time.sleep(0.02)
        (jvm,) = (child for child in psutil.Process(process.pid).children() if child.name() == "java")
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    _, left = psutil.wait_procs([jvm], timeout=10)
    assert all(each.status() == psutil.STATUS_ZOMBIE for each in left), "the JVM outlived its driver"


def test_killed_run_ends_with_the_same_tables(
    run_attached: RunAttached, contents: Contents, finished: Path, day_one: tuple[str, ...], tmp_path: Path
) -> None:
    """The first kill ends the driver and its JVM in the midst of a write, the others the driver alone, at named points."""
    kill_with_its_jvm(tmp_path, day_one, once_there="tables/items/_delta_log")
    assert not (tmp_path / "tables" / "samples").exists()
    for point in KILLED_AT:
        assert run_attached(SCRIPT, str(tmp_path), *day_one, **{VARIABLE: point})[0] == -signal.SIGKILL, point
    code, log = run_attached(SCRIPT, str(tmp_path), *day_one)
    assert code == 0, log[-4000:]
    for table in ("items", "interactions", "item_paths", "path_scores", "item_stats", "path_items", "recommendations"):
        pd.testing.assert_frame_equal(contents(tmp_path, table), contents(finished, table))
    assert len(contents(tmp_path, "releases")) == 1
    ours, theirs = (json.loads((place / "report" / "summary.json").read_text()) for place in (tmp_path, finished))
    assert ours["rounds"] == theirs["rounds"]
    assert ours["health"] == theirs["health"]
    accuracy = [
        [(row["method"], row["precision"], row["overlap"]) for row in found["results"]] for found in (ours, theirs)
    ]
    assert accuracy[0] == accuracy[1]


def test_nobody_is_recommended_an_item_of_that_users_log(
    tiny_world: TinyWorld, contents: Contents, finished: Path
) -> None:
    """Also not what a user did longer ago than the history of 20 that is kept, nor with too few events to count."""
    log = pq.read_table(tiny_world.logs["first"]).to_pandas()
    rows = contents(finished, "recommendations")
    own = set(zip(log["user_id"].astype(str), log["item_id"].astype(str), strict=True))
    assert not own & set(zip(rows["user"], rows["item_key"], strict=True))
    assert (log.groupby("user_id").size() > 20).sum() > 50, "users whose older events are in no history"
    items = contents(finished, "items").set_index("item_id")["item_key"]
    assert list(rows["item_key"]) == list(items[rows["item_id"]])
    assert set(contents(finished, "seen_items")["user"]).isdisjoint(rows["user"]), (
        "users with too few events have no history"
    )


def test_another_structure_is_refused_beside_a_live_release(
    finished: Path, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = str(shutil.copytree(finished, tmp_path / "W"))
    code = main(["run", *command, "--workdir", workdir, "--set", "paths.paths_per_item=1"])
    assert code == 2
    assert "paths.paths_per_item: 2 -> 1" in capsys.readouterr().err


def test_retrieve_answers_with_items_of_the_logs(
    contents: Contents, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = contents(finished, "items")["item_key"].tolist()[:3]
    history = ",".join([*known, "nonsense"])
    assert main(["retrieve", "--workdir", str(finished), "--history", history, "-k", "5", "--explain", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["unknown"] == ["nonsense"]
    keys = [item["item_key"] for item in document["items"]]
    assert len(keys) == len(set(keys)) == 5
    assert not set(keys) & set(known)
    assert sum(path["size"] for path in document["paths"]) >= document["candidates"]


def test_report_is_one_file_without_outside_links(finished: Path) -> None:
    page = (finished / "report" / "index.html").read_text()
    assert "deep_retrieval" in page or "Deep Retrieval" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


@pytest.fixture(scope="module")
def compared(tiny_world: TinyWorld, command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run with all baselines beside it, each with one setting."""
    workdir = tmp_path_factory.mktemp("compared") / "W"
    shutil.copytree(tiny_world.workdir, workdir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.experiments.baselines.TRIALS", 1)
        assert main(["compare", *command, "--workdir", str(workdir)]) == 0
    return workdir


def test_baselines_are_measured_beside_the_run(contents: Contents, finished: Path, compared: Path) -> None:
    num_items = len(contents(finished, "items"))
    before, after = (read_summary((place / "report" / "summary.json").read_text()) for place in (finished, compared))
    named = {method for family in families().values() for method in family}
    assert {row.method for row in after.results} == CONTROLS | named
    kept = [row for row in after.results if row.method in CONTROLS]
    assert kept == list(before.results)
    assert after.release_id == before.release_id
    for row in after.results:
        assert row.users == 40
        assert row.precision is not None
        if row.method in BASELINES:
            assert row.candidates == num_items
    popularity, *others = (
        max(row.recall or 0 for row in after.results if row.method == name and row.filtered and row.k == 10)
        for name in ("popularity", "item_cf", "ease", "als")
    )
    assert max(others) > popularity


def test_indexes_of_the_softmax_find_its_items(compared: Path) -> None:
    """The search grows until a tenth of the items is scored, and by then finds what brute force finds."""
    workdir = Workdir(str(compared))
    run_id = release_of(compared).rsplit("-", 1)[0]
    curves = Measurement.load(workdir, f"{run_id}.baseline-softmax").curves
    assert set(curves) == {"softmax_ivf", "softmax_ivf_work", "softmax_hnsw"}
    for curve in curves.values():
        costs = [point.mean_candidates for point in curve]
        assert costs == sorted(costs)
        assert curve[-1].figures[(False, 5, "overlap")].mean() > 0.3


def test_streaming_vq_is_measured_at_the_curves_budgets(compared: Path) -> None:
    """Every user gets as many candidates as the budget says, the served one among them, and more of them hold more."""
    run_id = release_of(compared).rsplit("-", 1)[0]
    measured = Measurement.load(Workdir(str(compared)), f"{run_id}.baseline-streaming_vq")
    curve = measured.curves["streaming_vq"]
    budgets = [point.beam for point in curve]
    assert budgets == sorted(set(budgets))
    for point in curve:
        assert (point.candidates == point.beam).all()
        assert point.multiply_adds is not None
        assert point.microseconds is not None
    assert (curve[-1].candidate_recall >= curve[0].candidate_recall).all()
    served = Measurement.load(Workdir(str(compared)), run_id).operating["deep_retrieval"]
    assert round(served.mean_candidates) in budgets


def test_an_index_is_read_at_equal_work(contents: Contents, compared: Path) -> None:
    """It is served as near to Deep Retrieval's multiply-adds as its widths allow, and measured up to the most of them, or until
    it has scored all active items."""
    summary = read_summary((compared / "report" / "summary.json").read_text())
    k = summary.results[0].k

    def work(method: str) -> dict[float | None, float]:
        rows = [row for row in summary.curves if row.method == method and row.k == k and row.filtered]
        return {row.beam: row.multiply_adds or 0.0 for row in rows}

    served = {row.method: row.beam for row in summary.results if row.k == k and row.filtered}
    own, index = work("deep_retrieval"), work("softmax_ivf_work")
    target = own[served["deep_retrieval"]]
    nearest = min(abs(each - target) for each in index.values())
    assert abs(index[served["softmax_ivf_work"]] - target) == nearest
    widest = max(row.candidates or 0 for row in summary.curves if row.method == "softmax_ivf_work")
    assert max(index.values()) >= max(own.values()) or widest == contents(compared, "items")["active"].sum()


def test_every_win_has_an_interval(compared: Path) -> None:
    summary = read_summary((compared / "report" / "summary.json").read_text())
    paired = {row.against for row in summary.differences if row.axis is None and row.metric == "precision"}
    assert paired >= {*BASELINES, "two_tower_hnsw", "ffm_hnsw", "brute_force", "popularity"}
    for row in summary.differences:
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.mean <= row.high


def test_the_page_shows_what_the_baselines_were_given(compared: Path) -> None:
    page = (compared / "report" / "index.html").read_text()
    for text in ("What the baselines were given", "Two-tower + HNSW", "Breadth of the lists", "microseconds a user"):
        assert text in page
    table = page[page.index('id="results"') :]
    shown = [
        float(cell) for cell in re.findall(r'data-column="precision"[^>]*>([\d.]+)<', table[: table.index("</table>")])
    ]
    assert shown == sorted(shown, reverse=True)


def test_compared_again_nothing_is_fitted(compared: Path, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.experiments.baselines.TRIALS", 1)
    monkeypatch.setattr(
        "pipelines.experiments.compare.measure_family", lambda *_: pytest.fail("a family is fitted again")
    )
    before = (compared / "report" / "summary.json").read_bytes()
    assert main(["compare", *command, "--workdir", str(compared), "--methods", "ease,softmax_hnsw"]) == 0
    assert (compared / "report" / "summary.json").read_bytes() == before


def test_an_unknown_method_is_named(compared: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *command, "--workdir", str(compared), "--methods", "ease,magic"]) == 2
    said = capsys.readouterr().err
    assert "magic" in said
    assert "two_tower" in said


def test_a_sweep_turns_one_knob_at_a_time(
    compared: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, values in SWEPT.items():
            patch.setitem(STUDIES, name, lambda facts, values=values: values)
        patch.setattr("pipelines.experiments.sweep.READ_SHARE", 0.1)
        code = main(["sweep", *command, "--workdir", str(compared), "--studies", ",".join(SWEPT), "--json"])
    assert code == 0
    rows = {(row["study"], row["value"]): row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {(study, str(value)) for study, values in SWEPT.items() for value in values}
    assert rows[("nodes", "9")]["K"] == 9
    assert rows[("layers", "3")]["D"] == 3
    assert rows[("paths_per_item", "1")]["J"] == 1
    assert rows[("alpha", "0")]["largest_path"] > rows[("alpha", "100")]["largest_path"]
    assert rows[("beam", "4")]["candidates"] > rows[("beam", "1")]["candidates"]
    assert 0 < rows[("encoder", "mean")]["brute_force_precision"] < 1
    assert rows[("assignment", "best path")]["largest_path"] > rows[("assignment", "descent")]["largest_path"]
    assert {row["study"] for row in rows.values() if "overlap" in row} >= {
        "beam",
        "nodes",
        "rounds",
        "assignment_random",
    }
    for value in ("learned", "shuffled"):
        assert rows[("coherence", value)]["lift"] > 0
        assert 0 <= rows[("coherence", value)]["nmi"] <= 1
    page = (compared / "report" / "index.html").read_text()
    assert 'id="sensitivity"' in page
    assert 'id="baselines"' in page


def test_an_unknown_study_is_named(compared: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *command, "--workdir", str(compared), "--studies", "nodes,luck"]) == 2
    assert "luck" in capsys.readouterr().err

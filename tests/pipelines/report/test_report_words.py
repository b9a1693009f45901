"""What the report says in words: the verdict, its warnings, the console table, the figures as text."""

from typing import Any

import pytest

from pipelines.report import formats, methods
from pipelines.report.console import trim_console_table
from pipelines.report.summary import parse_summary
from pipelines.report.verdict import remarks, verdict

VIEW = {"filtered": True, "k": 10}


def summary(**parts: Any) -> dict[str, Any]:
    return {"run_id": "r", "data": {"items": 1000}} | parts


def difference(against: str, low: float, high: float, metric: str = "overlap") -> dict[str, Any]:
    return VIEW | {
        "method": "deep_retrieval",
        "against": against,
        "metric": metric,
        "axis": "candidates",
        "at": 80,
        "mean": (low + high) / 2,
        "low": low,
        "high": high,
    }


RESULTS = [
    VIEW | {"method": "brute_force", "precision": 0.2, "microseconds": 400.0},
    VIEW
    | {"method": "deep_retrieval", "precision": 0.19, "overlap": 0.84, "candidates": 80.0, "candidate_recall": 0.24}
    | {"beam": 10, "microseconds": 100.0},
]


def test_the_verdict_states_fidelity_cost_and_ceiling() -> None:
    curves = [
        VIEW | {"method": "exact_candidates", "candidates": cost, "candidate_recall": recall}
        for cost, recall in ((60.0, 0.28), (100.0, 0.32))
    ]
    said = verdict(parse_summary(summary(results=RESULTS, curves=curves)))
    assert "with a beam of 10, Deep Retrieval looks at 80 of 1,000 items (8.0 %)" in said
    assert "returns 84.0 % of the brute-force top 10" in said
    assert "19.00 % against 20.00 % for brute force (95.0 % of it)" in said
    assert "100 µs a user against 400 µs (4.0 times faster)" in said
    assert "would hold 30.0 % (80 % of that ceiling)" in said


def test_a_slower_search_is_called_slower() -> None:
    slow = [RESULTS[0], RESULTS[1] | {"microseconds": 800.0}]
    assert "(2.0 times slower)" in verdict(parse_summary(summary(results=slow)))


def test_no_deep_retrieval_no_verdict() -> None:
    assert verdict(parse_summary(summary(results=RESULTS[:1]))) == ""
    assert verdict(parse_summary(summary())) == ""


def test_controls_are_sorted_by_what_their_intervals_allow() -> None:
    differences = [
        difference("random_paths", 0.1, 0.2),
        difference("random_paths", 0.02, 0.03, "candidate_recall"),
        difference("embedding_paths", -0.01, 0.02),
        difference("popular_candidates", -0.2, -0.1),
        difference("random_candidates", 0.1, 0.2) | {"k": 50},
        difference("brute_force", -0.1, -0.05),
    ]
    checked = parse_summary(summary(results=RESULTS, differences=differences))
    said = verdict(checked)
    assert "it is above random paths on overlap and candidate recall" in said
    assert "not clearly above embedding paths" in said
    assert "falls below popular candidates" in said
    assert "random candidates" not in said
    levels = {remark.text.split(" at equal")[0]: remark.level for remark in remarks(checked)}
    assert levels == {
        "Against popular candidates": "warning",
        "Against random paths": "good",
        "Against embedding paths": "note",
    }


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"health": {"largest_path": 51}}, "5.1 % of all"),
        ({"health": {"normalized_entropy": 0.5}}, "uneven"),
        ({"health": {"items_without_path": 2}}, "lie on no path"),
        ({"rounds": [{"round": n, "occupied_paths": 900 // n} for n in (1, 2, 3)]}, "collapsing"),
        ({"results": [RESULTS[1] | {"candidates": 200.0}]}, "20 % of all items"),
    ],
)
def test_a_collapse_is_a_warning(parts: dict[str, Any], words: str) -> None:
    (remark,) = remarks(parse_summary(summary(**parts)))
    assert remark.level == "warning"
    assert words in remark.text


def test_a_sound_run_has_no_warning() -> None:
    health = {"largest_path": 50, "normalized_entropy": 0.95, "items_without_path": 0}
    rounds = [{"round": 1, "occupied_paths": 900, "likelihood_before": -4.2, "likelihood_after": -4.1}]
    found = remarks(parse_summary(summary(results=RESULTS, health=health, rounds=rounds)))
    assert [remark.level for remark in found] == ["good"]


def test_a_falling_likelihood_is_named_by_its_round() -> None:
    rounds = [{"round": n, "likelihood_before": -4.0, "likelihood_after": -4.0 + n - 2} for n in (1, 2, 3)]
    (remark,) = remarks(parse_summary(summary(rounds=rounds)))
    assert "M-step of round 1 lowered" in remark.text


def test_saturated_precision_is_pointed_out() -> None:
    results = [*RESULTS, VIEW | {"method": "popular_candidates", "precision": 0.196}]
    (remark,) = remarks(parse_summary(summary(results=results)))
    assert remark.level == "note"
    assert "98 %" in remark.text


def test_the_console_table_lists_brute_force_first_and_ends_with_health_and_structure(
    fake_summary: dict[str, Any],
) -> None:
    filtered, unfiltered, closing = trim_console_table(fake_summary).split("\n\n")
    lines = filtered.splitlines()
    assert lines[0] == "top 10, history removed, 600 test users, fractions in %, mean of 3 seeds"
    assert lines[1].split() == ["P@10", "R@10", "overlap", "cand.recall", "candidates", "beam", "µs"]
    assert lines[2].split() == ["brute_force", "20.58", "7.71", "100.00", "100.00", "3,125", formats.MISSING, "412.5"]
    assert lines[3].startswith("deep_retrieval ")
    assert len({len(line) for line in lines[1:]}) == 1
    assert "history kept" in unfiltered
    assert "largest 32" in closing
    assert closing.splitlines()[1] == "structure  K=35  D=2  J=3  S=20  alpha=0.4871  beam=9"


def test_a_console_table_of_nothing_is_empty() -> None:
    assert trim_console_table({"run_id": "r"}) == ""


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formats.percent(0.20581), "20.58"),
        (formats.points(-0.0131), "\N{MINUS SIGN}1.31"),
        (formats.count(129797), "129,797"),
        (formats.count(80.26), "80.3"),
        (formats.count(4.963), "4.96"),
        (formats.count(None), formats.MISSING),
        (formats.magnitude(1_240_000), "1.24 M"),
        (formats.magnitude(-1_500_000), "\N{MINUS SIGN}1.5 M"),
        (formats.plain(3e-05), "3e\N{MINUS SIGN}05"),
        (formats.duration(75), "1 min 15 s"),
        (formats.duration(59.99), "60.0 s"),
        (formats.duration(7300), "2 h 2 min"),
        (formats.path((3, 17)), "3 → 17"),
        (formats.unbroken("5 % of 3 items in 2 µs"), "5\N{NO-BREAK SPACE}% of 3 items in 2\N{NO-BREAK SPACE}µs"),
        (methods.label("deep_retrieval_j1"), "Deep Retrieval · j1"),
        (methods.label("my_method"), "My method"),
    ],
)
def test_figures_read_as_people_write_them(shown: str, expected: str) -> None:
    assert shown == expected


def test_each_known_method_has_a_look_of_its_own() -> None:
    names = [*methods._KNOWN, "deep_retrieval_j1", "deep_retrieval_random_start", "mine"]
    styles = methods.Styles(names)
    looks = {(styles[name].color, styles[name].marker, styles[name].line) for name in names}
    assert len(looks) == len(names)

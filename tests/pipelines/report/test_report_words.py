"""What the report says in words: its checks, the console table, the figures as text."""

from typing import Any

import pytest

from pipelines.evaluation import methods
from pipelines.report import formats
from pipelines.report.checks import Check, checks
from pipelines.report.console import trim_console_table
from pipelines.report.render import _chosen
from pipelines.report.styles import Styles
from pipelines.report.summary import parse_summary

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


def lines(**parts: Any) -> dict[str, Check]:
    return {check.name: check for check in checks(parse_summary(summary(**parts)))}


def test_fidelity_cost_and_ceiling_are_told() -> None:
    curves = [
        VIEW | {"method": "exact_candidates", "candidates": cost, "candidate_recall": recall}
        for cost, recall in ((60.0, 0.28), (100.0, 0.32))
    ]
    curves += [
        VIEW | {"method": "deep_retrieval", "beam": 10, "candidates": 80.0, "multiply_adds": 3e4},
        VIEW | {"method": "brute_force", "candidates": 1000.0, "multiply_adds": 6e4},
    ]
    results = [RESULTS[0] | {"candidates": 1000.0}, RESULTS[1]]
    told = {name: (check.figure, check.level) for name, check in lines(results=results, curves=curves).items()}
    assert told == {
        "Overlap with brute force": ("84.0 %", "figure"),
        "Precision, of brute force's": ("95.0 %", "figure"),
        "Candidate recall, of the softmax's own best as many": ("80.0 %", "figure"),
        "Multiply-adds, of brute force's": ("50.0 %", "good"),
        "Time a user, of brute force's": ("25.0 %", "good"),
        "Candidates, of all items": ("8.0 %", "good"),
    }


def test_a_slower_search_is_noted() -> None:
    slow = lines(results=[RESULTS[0], RESULTS[1] | {"microseconds": 800.0}])["Time a user, of brute force's"]
    assert (slow.figure, slow.bound, slow.level) == ("200.0 %", "at most 100.0 %", "note")


def test_without_figures_there_is_no_check() -> None:
    assert lines(results=RESULTS[:1]) == {}
    assert lines() == {}


def test_controls_are_judged_by_what_their_intervals_allow() -> None:
    differences = [
        difference("random_paths", 0.1, 0.2),
        difference("random_paths", 0.2, 0.3) | {"at": 40},
        difference("random_paths", 0.02, 0.03, "candidate_recall"),
        difference("embedding_paths", -0.01, 0.02),
        difference("popular_candidates", -0.2, -0.1),
        difference("random_candidates", 0.1, 0.2) | {"k": 50},
        difference("brute_force", -0.1, -0.05),
    ]
    judged = {
        name: (check.figure, check.level)
        for name, check in lines(results=RESULTS[1:], differences=differences).items()
        if " over " in name
    }
    assert judged == {
        "Overlap over random paths, equal candidates": ("+15.00 to +25.00 points", "good"),
        "Candidate recall over random paths, equal candidates": ("+2.50 points", "good"),
        "Overlap over embedding paths, equal candidates": ("+0.50 points", "note"),
        "Overlap over popular candidates, equal candidates": ("\N{MINUS SIGN}15.00 points", "warning"),
    }


@pytest.mark.parametrize(
    ("parts", "name", "figure"),
    [
        ({"health": {"largest_path": 51}}, "Largest path, of all items", "5.1 %"),
        ({"health": {"normalized_entropy": 0.5}}, "Normalised entropy of path sizes", "0.5"),
        ({"health": {"items_without_path": 2}}, "Items without a path", "2"),
        (
            {"rounds": [{"round": n, "occupied_paths": 900 // n} for n in (1, 2, 3)]},
            "Occupied paths after the last round, of the first's",
            "33.3 %",
        ),
        ({"results": [RESULTS[1] | {"candidates": 200.0}]}, "Candidates, of all items", "20.0 %"),
    ],
)
def test_a_collapse_is_a_warning(parts: dict[str, Any], name: str, figure: str) -> None:
    check = lines(**parts)[name]
    assert (check.figure, check.level) == (figure, "warning")
    assert check.advice
    assert next(iter(lines(**parts))) == name, "warnings come first"


def test_a_sound_run_has_no_warning() -> None:
    health = {"largest_path": 50, "normalized_entropy": 0.95, "items_without_path": 0}
    rounds = [{"round": 1, "occupied_paths": 900, "likelihood_before": -4.2, "likelihood_after": -4.1}]
    found = lines(results=RESULTS, health=health, rounds=rounds)
    assert {check.level for check in found.values()} == {"good", "figure"}
    assert not any(check.advice for check in found.values())


def test_rounds_that_lowered_the_likelihood_are_counted() -> None:
    rounds = [{"round": n, "likelihood_before": -4.0, "likelihood_after": -4.0 + n - 2} for n in (1, 2, 3)]
    check = lines(rounds=rounds)["Rounds that lowered the likelihood"]
    assert (check.figure, check.level) == ("1", "note")


def test_saturated_precision_is_noted() -> None:
    results = [*RESULTS, VIEW | {"method": "popular_candidates", "precision": 0.196}]
    check = lines(results=results)["Precision of popular candidates, of brute force's"]
    assert (check.figure, check.level) == ("98.0 %", "note")


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


def test_layers_of_different_sizes_are_named_in_the_console() -> None:
    structure = {"K": 512, "D": 2, "nodes": [512, 32]}
    assert trim_console_table({"run_id": "r", "structure": structure}) == "structure  K=512 x 32  D=2"
    assert (
        trim_console_table({"run_id": "r", "structure": structure | {"nodes": [512, 512]}}) == "structure  K=512  D=2"
    )


def test_the_console_says_which_algorithm_ran_and_leaves_the_reason_to_the_report() -> None:
    summary = {
        "run_id": "r",
        "structure": {"K": 5, "m_step": "both: an item has one path", "search": "p/|c|: few paths"},
    }
    assert trim_console_table(summary) == "structure  K=5  m_step=both  search=p/|c|"


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
        (formats.setting("stan"), "stan"),
        (formats.setting(False), "no"),
        (formats.setting(0.05), "0.05"),
        (formats.setting(None), formats.MISSING),
        (formats.duration(75), "1 min 15 s"),
        (formats.duration(59.99), "60.0 s"),
        (formats.duration(7300), "2 h 2 min"),
        (formats.path((3, 17)), "3 → 17"),
        (formats.unbroken("5 % of 3 items in 2 µs"), "5\N{NO-BREAK SPACE}% of 3 items in 2\N{NO-BREAK SPACE}µs"),
        (methods.label("deep_retrieval_j1"), "Deep Retrieval, J=1"),
        (methods.label("my_method"), "My method"),
    ],
)
def test_figures_read_as_people_write_them(shown: str, expected: str) -> None:
    assert shown == expected


def test_each_method_has_a_look_of_its_own() -> None:
    names = [*(method.name for method in methods.REGISTERED), "deep_retrieval_j1", "deep_retrieval_j2", "mine"]
    styles = Styles(names)
    looks = {(style.color, style.marker, style.line) for style in (styles[name].style for name in names)}
    assert len(looks) == len(names)


def test_the_report_counts_the_paths_of_layers_of_different_sizes() -> None:
    def chosen(**structure: Any) -> list[tuple[str, str, str]]:
        return _chosen(parse_summary(summary(structure=structure)))

    even = [("K", "35", "nodes a layer"), ("D", "2", "layers"), ("Kᴰ", "1,225", "possible paths")]
    assert chosen(K=35, D=2) == chosen(K=35, D=2, nodes=[35, 35]) == even
    assert chosen(K=512, D=2, nodes=[512, 32]) == [
        ("K", "512 x 32", "nodes of each layer"), ("D", "2", "layers"), ("paths", "16,384", "possible paths"),
    ]  # fmt: skip
    assert chosen(J=1) == [("J", "1", "paths an item")]

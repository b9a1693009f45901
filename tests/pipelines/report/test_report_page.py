import re
from html.parser import HTMLParser
from typing import Any

import pytest

from dr_core.errors import InputError
from pipelines.report import formats
from pipelines.report.learning_figures import rounds_figure
from pipelines.report.render import render_report
from pipelines.report.summary import parse_summary

VOID = {"meta", "link", "br", "img", "input", "hr"}
SECTIONS = {
    "checks",
    "results",
    "curves",
    "differences",
    "path-sizes",
    "health",
    "rounds",
    "training",
    "segments",
    "example-paths",
    "example-user",
    "stages",
    "notes",
    "configuration",
}


class Page(HTMLParser):
    """Tags must nest; what the tests ask about is kept."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.sections: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.cells: dict[tuple[int, str, str], str] = {}
        self.text: list[str] = []
        self._table, self._row, self._cell = -1, "", ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "section":
            self.sections.add(given["id"])
        self.links += [value for name, value in given.items() if name in ("href", "src", "xlink:href")]
        self._table += tag == "table" and given.get("class") == "results"
        if tag == "tr":
            self._row = given.get("data-method", "")
        if tag == "td":
            self._cell = given.get("data-column", "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag
        if tag == "td":
            self._cell = ""

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self._row and self._cell:
            self.cells[self._table, self._row, self._cell] = data


def test_the_page_nests_and_shows_every_section(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    assert parsed.sections == SECTIONS
    assert {"data", "structure", "by-activity", "by-popularity"} <= set(parsed.ids)


def test_every_id_is_unique_and_every_link_stays_inside(page: str) -> None:
    parsed = Page(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.links
    assert {link.removeprefix("#") for link in parsed.links} <= set(parsed.ids)
    assert all(link.startswith("#") for link in parsed.links)
    assert set(re.findall(r"url\((.)", page)) == {"#"}


def test_nothing_is_fetched_or_run(page: str) -> None:
    for forbidden in ("http:", "https:", "//", "@import", "<script", "<link", "<img", "onload"):
        assert forbidden not in page


def test_every_number_of_the_results_tables_is_the_input_formatted(fake_summary: dict[str, Any], page: str) -> None:
    cells = Page(page).cells
    views = list(dict.fromkeys((row["filtered"], row["k"]) for row in fake_summary["results"]))
    for row in fake_summary["results"]:
        place = (views.index((row["filtered"], row["k"])), row["method"])
        for name in ("precision", "recall", "f1", "ndcg", "hit_rate", "overlap", "candidate_recall", "sd"):
            expected = formats.MISSING if row[name] is None else f"{100 * row[name]:.2f}"
            assert cells[(*place, name)] == expected
        for name in ("candidates", "beam", "microseconds"):
            assert cells[(*place, name)] == formats.count(row[name])
        assert cells[(*place, "interval")] == formats.interval(row["interval"])


def test_multiply_adds_of_a_result_are_those_of_its_own_point(fake_summary: dict[str, Any], page: str) -> None:
    cells = Page(page).cells
    ours = fake_summary["results"][0]
    for row in fake_summary["curves"]:
        if all(row[name] == ours[name] for name in ("method", "filtered", "k", "beam")):
            assert cells[0, "deep_retrieval", "multiply_adds"] == formats.magnitude(row["multiply_adds"])
    assert cells[0, "brute_force", "multiply_adds"] == "200 k"
    assert cells[0, "exact_candidates", "multiply_adds"] == cells[0, "popularity", "multiply_adds"]


def test_titles_are_escaped(page: str) -> None:
    assert "M*A*S*H &amp; Co &lt;uncut&gt; (1970)" in page
    assert "<uncut>" not in page


PARTS = {
    "results": ("results", {"checks", "results"}),
    "curves": ("curves", {"curves"}),
    "differences": ("differences", {"differences"}),
    "health": ("health", {"health", "checks"}),
    "rounds": ("rounds", {"rounds", "checks"}),
    "stages": ("stages", {"stages"}),
    "path_sizes": ("path-sizes", {"path-sizes"}),
    "training": ("training", {"training"}),
    "by_activity": ("segments", {"segments"}),
    "by_popularity": ("segments", {"segments"}),
    "example_paths": ("example-paths", {"example-paths"}),
    "example_user": ("example-user", {"example-user"}),
    "notes": ("notes", {"notes"}),
    "config_text": ("configuration", {"configuration"}),
}


@pytest.mark.parametrize("part", PARTS)
def test_one_part_alone_gives_its_section_alone(
    part: str, fake_summary: dict[str, Any], fake_data: dict[str, Any]
) -> None:
    summary = {"run_id": "r"} | ({part: fake_summary[part]} if part in fake_summary else {})
    parsed = Page(render_report(summary, {part: fake_data[part]} if part in fake_data else {}))
    assert parsed.open == []
    assert parsed.sections == PARTS[part][1]
    assert [link for link in parsed.links if link.removeprefix("#") not in parsed.ids] == []


def test_nothing_but_a_run_id_is_still_a_page() -> None:
    parsed = Page(render_report({"run_id": "20260101-a"}, {"example_user": None}))
    assert parsed.sections == set()
    assert "20260101-a" in parsed.text


def test_rows_without_figures_leave_dashes_and_no_figure() -> None:
    results = [{"method": name, "filtered": False, "k": 5} for name in ("my_method", "deep_retrieval")]
    rows = [{"method": "my_method", "bucket": "all"}]
    summary = {
        "run_id": "r",
        "results": results,
        "rounds": [{"round": 1}],
        "stages": [{"name": "samples"}],
        "curves": results,
        "differences": [
            {"method": "deep_retrieval", "against": "my_method", "metric": "recall", "filtered": False, "k": 5}
        ],
    }
    page = render_report(summary, {"by_activity": rows, "path_sizes": [{"label": "initial"}]})
    assert Page(page).sections == {"results", "differences"}
    assert "<svg" not in page


def test_a_collapsed_run_still_draws(fake_summary: dict[str, Any], fake_data: dict[str, Any]) -> None:
    sizes = [{"label": "initial", "histogram": [[1, 900], [2, 40]]}, {"label": "after", "histogram": [[3000, 1]]}]
    assert Page(render_report({"run_id": "r"}, {"path_sizes": sizes})).sections == {"path-sizes"}


def test_figures_are_the_same_bytes_every_time(fake_summary: dict[str, Any]) -> None:
    rounds = parse_summary(fake_summary).rounds
    assert rounds_figure(rounds) == rounds_figure(rounds)


def test_malformed_data_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"training\.0\.epoch"):
        render_report({"run_id": "r"}, {"training": [{"phase": "warm up"}]})

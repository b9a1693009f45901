"""The page of all releases, on releases made up."""

from pipelines.report.releases_page import render
from tests.pipelines.report.releases_made_up import days


def test_the_page_shows_every_release_and_why_it_was_judged_so() -> None:
    page = render(days(3), "it is <old>")
    for text in (
        "full-1",
        "day-3",
        "A full run is due",
        "it is &lt;old&gt;",
        "&lt;few&gt; users",
        "not judged",
        "0.1234",
        "<svg",
    ):
        assert text in page
    assert "http" not in page.replace("http-equiv", "")

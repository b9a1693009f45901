"""Bounds of the packages stand where pip reads them, and what is pinned for the tests lies within them."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipelines.cli.environment import bounds

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = [Requirement(text) for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["baselines"]]]
PINS = {
    canonicalize_name(pin.name): pin
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if (pin := Requirement(line))
}
CALENDAR = {"fsspec", "packaging"}
"""Versions that are dates, or libraries that break nothing: a ceiling would only age."""


@pytest.mark.parametrize("requirement", NEEDED, ids=lambda requirement: requirement.name)
def test_every_package_has_a_floor_and_a_ceiling(requirement: Requirement) -> None:
    operators = {specifier.operator for specifier in requirement.specifier}
    wanted = {">="} if requirement.name in CALENDAR else {">=", "<"}
    assert operators in (wanted, {"=="})


@pytest.mark.parametrize("requirement", NEEDED, ids=lambda requirement: requirement.name)
def test_every_pin_lies_within_the_bounds(requirement: Requirement) -> None:
    (pin,) = PINS[canonicalize_name(requirement.name)].specifier
    assert pin.operator == "=="
    assert requirement.specifier.contains(pin.version)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("pyarrow", "15.0.0"),
        ("numpy", "2.0.0"),
        ("pandas", "3.0.0"),
        ("petastorm", "0.13.0"),
        ("pyspark", "4.1.0"),
        ("delta-spark", "4.1.0"),
    ],
)
def test_a_version_that_is_known_not_to_work_is_kept_out(name: str, broken: str) -> None:
    (requirement,) = [needed for needed in NEEDED if needed.name == name]
    assert not requirement.specifier.contains(broken)


def test_the_installed_metadata_carry_the_bounds() -> None:
    assert sorted(map(str, bounds())) == sorted(str(Requirement(text)) for text in PROJECT["dependencies"])


def test_the_makefile_installs_extras_that_there_are() -> None:
    (extras,) = re.findall(r"-e '\.\[([a-z,]+)\]'", (ROOT / "Makefile").read_text())
    assert set(extras.split(",")) == set(PROJECT["optional-dependencies"])

"""Every command that README.md shows is one that can be typed."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from tests.pipelines.cli.parsing import parse

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
PROJECT_FILE = re.compile(r"(?:conf|docs|benchmarks|jobs|airflow_dags|tests)/[\w./-]+")


def blocks() -> list[tuple[str, str]]:
    """Return language and text of every code block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def command_lines() -> list[str]:
    """Return the lines of all code blocks that are for a shell, without their comments."""
    shells = [text for language, text in blocks() if language in ("", "bash", "sh")]
    return [line.split(" #")[0].strip() for text in shells for line in text.splitlines() if line.strip()]


def spoken_commands() -> list[str]:
    """Return the commands that stand within sentences and tables, as `make x` or `dr x`; a number for V."""
    spoken = [words for words in re.findall(r"`([^`\n]+)`", README) if re.match(r"(make|dr) [a-z]", words)]
    return [re.sub(r"\bV\b", "1000", words) for words in spoken]


def check(line: str) -> None:
    """Check a line of ``make`` or ``dr``; raise if the command does not know it."""
    program, *words = shlex.split(line)
    if program == "make":
        targets = [word for word in words if "=" not in word]
        assert set(targets) <= TARGETS, f"no such target: {targets}"
        for name in (word.split("=")[0] for word in words if "=" in word):
            assert re.search(rf"^{name} \?=", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no variable {name}"
    else:
        assert program in ("dr", ".venv/bin/dr"), f"{program} is not installed by make install"
        parse(words)


def test_the_readme_has_commands_of_both_kinds() -> None:
    programs = {line.split()[0] for line in command_lines()}
    assert programs == {"make", ".venv/bin/dr"}


@pytest.mark.parametrize("line", [*command_lines(), *spoken_commands()])
def test_a_command_of_the_readme_can_be_typed(line: str) -> None:
    check(line)


@pytest.mark.parametrize(
    "line", ["make tea", "make demo PLACE=x", ".venv/bin/dr walk", ".venv/bin/dr run --nodes 3", "dr compare"]
)
def test_a_command_that_there_is_not_is_found(line: str) -> None:
    with pytest.raises((AssertionError, typer.TyperException)):
        check(line)


@pytest.mark.parametrize("name", sorted(set(PROJECT_FILE.findall(README))))
def test_a_file_that_the_readme_names_is_there(name: str) -> None:
    assert (ROOT / name).exists()


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    (program,) = [text for language, text in blocks() if language == "python"]
    exec(compile(program, "README.md", "exec"), names)
    loaded = names["model"]
    found = loaded.recommend(["film 3", "film 6"], k=3)  # type: ignore[attr-defined]
    assert len(set(found.items)) == 3
    assert not {"film 3", "film 6"} & set(found.items)

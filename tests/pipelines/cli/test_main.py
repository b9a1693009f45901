"""The ``dr`` command: its options, its exit codes, and what goes to stdout."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from typer.main import get_command

from pipelines.cli.commands.experiments import sweep_table
from pipelines.cli.commands.learn import plan_lines
from pipelines.cli.main import app, main
from tests.pipelines.cli.parsing import parse

DATA = {"--config", "--workdir", "--logs", "--catalogue", "--set"}
OPTIONS = {
    "init": {"--logs", "--catalogue", "--out", "--force"},
    "run": {*DATA, "--seeds", "--fresh", "--start", "--end", "--from", "--only", "--dry-run"},
    "refresh": {*DATA, "--start", "--end", "--only"},
    "compare": {*DATA, "--methods", "--seeds", "--fresh", "--start", "--end"},
    "sweep": {*DATA, "--studies", "--seeds", "--start", "--end"},
    "retrieve": {
        "--workdir", "--history", "--user", "--users", "--out", "-k", "--beam", "--keep-history", "--block",
        "--ignore-unknown-blocked", "--explain", "--release",
    },
    "quarantine": {"--workdir", "--reason", "-n", "--interval"},
    "evaluate": {"--workdir", "--release"},
    "report": {"--workdir"},
    "releases list": {"--workdir"},
    "releases show": {"--workdir"},
    "releases promote": {"--workdir"},
    "releases rollback": {"--workdir"},
    "doctor": {"--config", "--items", "--set"},
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "w.yaml"
    file.write_text(
        "name: w\ndataset: {format: parquet, columns: {time: time}}\nsplit: {num_test: 1, num_validation: 1}\n"
    )
    return str(file)


def commands() -> dict[str, Any]:
    """Return every command by its words after ``dr``."""
    found = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        for inner, nested in getattr(command, "commands", {"": command}).items():
            found[f"{name} {inner}".strip()] = nested
    return found


def complaint(error_output: str, command: str) -> str:
    """Return the one line in which a command says what is wrong; no traceback is beside it."""
    assert "Traceback" not in error_output
    (line,) = [line for line in error_output.splitlines() if line.startswith(f"dr {command}: ")]
    return line


def test_the_options_are_these() -> None:
    found = {
        name: {option for parameter in command.params for option in parameter.opts if option.startswith("-")}
        - {"--json"}
        for name, command in commands().items()
    }
    assert found == OPTIONS


def test_every_command_takes_json() -> None:
    assert [name for name, command in commands().items() if "--json" not in {p.opts[0] for p in command.params}] == []


@pytest.mark.parametrize("command", ["", "releases", *OPTIONS])
def test_help_is_there_for_everything(
    command: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main([*command.split(), "--help"]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    below = [name.removeprefix(command).split()[0] for name in OPTIONS if name.startswith(command) and name != command]
    wanted = [*below, "75 try again"] if command in ("", "releases") else [*OPTIONS[command], "--json", "75 try again"]
    assert [word for word in wanted if word not in said.out] == []


def test_every_option_says_what_it_does() -> None:
    undocumented = [
        f"{name} {parameter.name}"
        for name, command in commands().items()
        for parameter in command.params
        if not parameter.help
    ]
    assert undocumented == []


@pytest.mark.parametrize("name", OPTIONS)
def test_every_command_shows_examples_that_parse(name: str) -> None:
    examples = [line.strip() for line in commands()[name].epilog.splitlines() if line.strip().startswith("dr ")]
    assert examples
    for example in examples:
        assert example.split()[1 : 1 + len(name.split())] == name.split()
        parse(shlex.split(example)[1:])


WRONG = [
    [],
    ["walk"],
    ["run"],
    ["run", "--config", "c", "--seeds", "0"],
    ["run", "--config", "c", "--seeds", "many"],
    ["run", "--config", "c", "--nodes", "3"],
    ["run", "--config"],
    ["run", "--config", "c", "more"],
    ["retrieve", "--workdir", "w"],
    ["retrieve", "--workdir", "w", "--history", "1", "--users", "f", "--out", "o"],
    ["retrieve", "--workdir", "w", "--users", "f"],
    ["retrieve", "--workdir", "w", "--users", "f", "--out", "o", "--explain"],
    ["retrieve", "--workdir", "w", "--history", "1", "--out", "o"],
    ["releases", "burn", "--workdir", "w"],
    ["releases", "promote", "--workdir", "w"],
    ["releases", "rollback", "r", "--workdir", "w"],
    ["refresh", "--config", "c", "--start", "2024-01-01"],
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_arguments_end_with_2_and_one_line(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capfd.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("dr")


def test_wrong_arguments_are_told_to_machines_too(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--nodes", "3", "--json"]) == 2
    document = json.loads(capfd.readouterr().out)
    assert document["exit_code"] == 2
    assert "--nodes" in document["error"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--users", "f", "--out", "o", "--explain"], "--explain"),
        (["--history", "1", "--out", "o"], "--out"),
        (["--users", "f"], "--out"),
        (["--history", "1", "--users", "f"], "either --history KEYS or --user U or --users FILE"),
        (["--history", "1", "--user", "u"], "either --history KEYS or --user U or --users FILE"),
        (["--history", ""], "--history names no item"),
        (["--history", " , "], "--history names no item"),
        (["--history", "[]"], "--history names no item"),
        (["--history", '["1", null]'], "--history: None is no key"),
        (["--history", "[DVD] Heat"], "begins with [ and is no JSON list"),
        (["--history", "@nowhere"], "--history @nowhere: the file cannot be read"),
        (["--history", "1", "--block", '["1"'], "--block"),
        (["--user", ""], "--user names one user"),
        (["--user", "a", "--user", "b"], "--user names one user"),
    ],
)
def test_options_of_retrieve_that_do_not_go_together_are_named(
    arguments: list[str], word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["retrieve", "--workdir", "w", *arguments]) == 2
    assert word in complaint(capfd.readouterr().err, "retrieve")


def test_help_and_wrong_arguments_load_nothing_slow() -> None:
    program = (
        "import sys; from pipelines.cli.main import main; main(['run', '--help']); main(['retrieve', '--workdir', 'w']);"
        "print([name for name in ('torch', 'pyspark', 'numpy', 'pandas', 'petastorm') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_told_how_to_complete(shell: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from pipelines.cli.main import main; main()"],
        env=os.environ | {"_DR_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_DR_COMPLETE" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "missing.yaml"], ["missing.yaml does not exist"]),
        (["--set", "paths.breadth=3"], ["paths.breadth=3", "unknown key", "num_nodes"]),
        (["--set", "paths.num_layers=1"], ["paths.num_layers=1", "greater than or equal to 2"]),
        (["--set", "paths"], ["--set paths: expected key=value"]),
        (["--set", "training.batch_rows=many"], ["training.batch_rows='many'", "integer"]),
    ],
)
def test_a_wrong_configuration_ends_with_2_and_one_line(
    arguments: list[str], words: list[str], config: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--config", config, "--workdir", str(tmp_path / "w"), *arguments]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert all(word in complaint(said.err, "run") for word in words)
    assert not (tmp_path / "w").exists()


def test_a_log_that_is_not_there_is_named_on_stderr_and_in_the_document(
    config: str, tmp_path: Path, spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "nowhere.parquet")
    assert main(["run", "--config", config, "--workdir", str(tmp_path / "w"), "--logs", missing, "--json"]) == 2
    said = capfd.readouterr()
    document = json.loads(said.out)
    assert document["exit_code"] == 2
    assert missing in document["error"]
    assert missing in complaint(said.err, "run")


def test_a_column_that_is_not_there_is_named_with_those_that_are(
    config: str, tmp_path: Path, spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    logs = str(tmp_path / "logs.parquet")
    pq.write_table(pa.table({"user": ["a"], "film": ["b"], "time": [1]}), logs)
    assert main(["run", "--config", config, "--workdir", str(tmp_path / "w"), "--logs", logs]) == 2
    line = complaint(capfd.readouterr().err, "run")
    assert "no column 'item' (dataset.columns.item)" in line
    assert "film" in line


def test_without_java_a_command_says_so(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.spark.session._running_jvm", lambda: None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert main(["run", "--config", config, "--workdir", str(tmp_path / "w")]) == 2
    assert "Java was not found: install a Java 17" in complaint(capfd.readouterr().err, "run")


@pytest.mark.parametrize(
    "arguments",
    [["report"], ["evaluate"], ["releases", "show"], ["retrieve", "--history", "1"]],
    ids=" ".join,
)
def test_a_folder_without_a_release_is_told_so(
    arguments: list[str], tmp_path: Path, spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--workdir", str(tmp_path)]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert str(tmp_path) in complaint(said.err, " ".join(word for word in arguments[:2] if word.isalpha()))


def test_a_folder_in_use_asks_to_try_again(config: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lease = {"host": os.uname().nodename, "pid": os.getppid(), "token": "other", "until": 4e9}
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "run.lease").write_text(json.dumps(lease))
    assert main(["run", "--config", config, "--workdir", str(tmp_path)]) == 75
    assert "in use by process" in complaint(capfd.readouterr().err, "run")


def test_a_bug_shows_its_traceback_and_still_one_document(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise KeyError("what nobody thought of")

    monkeypatch.setattr("pipelines.cli.doctor.examine", fail)
    assert main(["doctor", "--json"]) == 1
    said = capfd.readouterr()
    assert json.loads(said.out)["exit_code"] == 1
    lines = said.err.splitlines()
    assert lines[0] == "Traceback (this project's part):"
    assert len(lines) < 20
    assert all("site-packages" not in line for line in lines)
    assert lines[-2] == "dr doctor: KeyError: 'what nobody thought of'"
    whole = Path(lines[-1].rpartition("the whole traceback: ")[2].partition(";")[0])
    assert "in fail" in whole.read_text()
    whole.unlink()


def test_releases_of_an_empty_folder_are_an_empty_document(
    tmp_path: Path, spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["releases", "list", "--workdir", str(tmp_path), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == []
    assert main(["releases", "list", "--workdir", str(tmp_path)]) == 0
    assert capfd.readouterr().out == f"no releases in {tmp_path}\n"


def test_the_doctor_answers_with_one_document(spark: SparkSession, capfd: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json"])
    checks = json.loads(capfd.readouterr().out)
    assert code == (0 if all(check["ok"] for check in checks) else 2)
    assert {"name", "ok", "found", "mend"} == set(checks[0])
    assert "spark" in [check["name"] for check in checks]


def test_what_others_print_meanwhile_goes_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def noisy(*arguments: object) -> list[object]:
        print("from Python")
        os.system("echo from a child process")
        return []

    monkeypatch.setattr("pipelines.cli.doctor.examine", noisy)
    assert main(["doctor", "--json"]) == 0
    said = capfd.readouterr()
    assert said.out == "[]\n"
    assert "from Python" in said.err
    assert "from a child process" in said.err


def test_a_sweeps_table_has_a_dash_where_a_collapsed_structure_was_not_read() -> None:
    lines = sweep_table(
        [
            {"study": "alpha", "value": "0", "overlap": None, "candidate_recall": None, "largest_path": 1263},
            {"study": "alpha", "value": "1", "overlap": 0.961, "candidate_recall": 0.29, "largest_path": 6},
            {"study": "together", "value": "learned", "lift": 2.88, "nmi": None},
        ]
    )
    assert lines[0].split() == ["study", "value", "overlap", "candidate_recall", "largest_path", "lift"]
    assert lines[1].split() == ["alpha", "0", "–", "–", "1263", "–"]
    assert lines[3].split() == ["together", "learned", "–", "–", "–", "2.88"]


def test_a_dry_runs_table_has_a_line_for_each_stage() -> None:
    lines = plan_lines(
        [
            {"name": "samples", "action": "skip", "reason": "done before", "job": "samples"},
            {"name": "e_step_1", "action": "run", "reason": "asked for", "job": "train_model --round 1"},
        ]
    )
    assert [line.split() for line in lines] == [
        ["skip", "samples", "done", "before", "job", "samples"],
        ["run", "e_step_1", "asked", "for", "job", "train_model", "--round", "1"],
    ]

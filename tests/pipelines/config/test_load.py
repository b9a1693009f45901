"""One configuration: strict, overridable, and clear about what is wrong."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from dr_core.errors import ConfigError, InputError
from dr_core.learning.budget import choose_structure
from dr_core.paths.space import PathSpace
from pipelines.config.load import load_config, recorded_config, validate_config
from pipelines.config.run import RunConfig

CONF = Path(__file__).parents[3] / "conf"
WORLDS = sorted(path for path in CONF.glob("*.yaml"))
MINIMAL = {"name": "tiny", "dataset": {"format": "synthetic"}}


@pytest.fixture
def minimal(tmp_path: Path) -> str:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(MINIMAL))
    return str(file)


@pytest.mark.parametrize("path", WORLDS, ids=lambda path: path.stem)
def test_every_world_loads_and_is_named_after_its_file(path: Path) -> None:
    assert load_config(str(path)).name == path.stem


@pytest.mark.parametrize("mode", ["json", "python"])
@pytest.mark.parametrize("path", WORLDS, ids=lambda path: path.stem)
def test_a_configuration_survives_the_round_trip(path: Path, mode: str) -> None:
    config = load_config(str(path))
    again = validate_config(config.model_dump(mode=mode), "record")
    assert again == config
    assert again.identity() == config.identity()


def test_overrides_change_what_they_name_and_nothing_else(minimal: str) -> None:
    overrides = [
        "paths.num_layers=3",
        "penalty.alpha=1e-3",
        "evaluation.k=[5, 20]",
        "dataset.path=a=b",
        "budget.candidates=null",
    ]
    config = load_config(minimal, overrides)
    expected = RunConfig.model_validate(
        MINIMAL
        | {
            "paths": {"num_layers": 3},
            "penalty": {"alpha": 0.001},
            "evaluation": {"k": (5, 20)},
            "dataset": {"format": "synthetic", "path": "a=b"},
            "budget": {"candidates": None},
        }
    )
    assert config == expected


def test_layers_may_have_different_numbers_of_nodes(minimal: str) -> None:
    config = load_config(minimal, ["paths.nodes=[64, 16, 4]"])
    assert (config.paths.nodes, config.paths.num_layers) == ((64, 16, 4), 3)
    assert validate_config(config.model_dump(mode="json"), "record") == config
    choice = choose_structure(config, 5000, 1)
    assert choice.space.nodes == (64, 16, 4)
    assert "64 x 16 x 4 nodes: as configured" in choice.reasons
    even = load_config(minimal, ["paths.nodes=[16, 16]"])
    assert choose_structure(even, 5000, 1).space == PathSpace.even(16, 2)
    back = load_config(minimal, ["paths.nodes=[64, 16, 4]", "paths.nodes=null", "paths.num_nodes=9"])
    assert choose_structure(back, 5000, 1).space == PathSpace.even(9, 2)


def test_a_product_of_layers_of_different_sizes_is_refused_at_once(minimal: str) -> None:
    with pytest.raises(ConfigError, match=r"paths.nodes=\[512, 32\] with .* set structure.normaliser=global, or one K"):
        load_config(minimal, ["paths.nodes=[512, 32]", "structure.normaliser=layers"])
    assert load_config(minimal, ["paths.nodes=[32, 32]", "structure.normaliser=layers"]).paths.nodes == (32, 32)


def test_the_last_override_of_a_key_wins_over_the_file(minimal: str) -> None:
    assert load_config(minimal, ["name=a", "name=b"]).name == "b"


def test_identity_follows_every_value_but_those_of_the_session(minimal: str) -> None:
    plain = load_config(minimal).identity()
    assert load_config(minimal, ["spark.master=local[3]", "spark.conf={a: b}"]).identity() == plain
    later = [
        "serving.k=3",
        "serving.beam=4",
        "evaluation.controls=false",
        "gates.min_users=9",
        "refresh.joint_epochs=1",
    ]
    assert load_config(minimal, later).identity() == plain, "what is served, measured or done later is not learned"
    changes = ["serving.history_length=9", "seed=1", "encoder.dim=8", "paths.paths_per_item=3", "em.rounds=5"]
    identities = {load_config(minimal, [change]).identity() for change in changes}
    assert len(identities | {plain}) == 6


WRONG = {
    "paths.bogus=3": ["paths.bogus=3", "unknown key", "num_nodes", "paths_per_item"],
    "bogus.a=1": ["bogus", "unknown key", "dataset", "evaluation"],
    "preprocess.positive={kind: threshold, at_least: 1, over: 2}": [
        "preprocess.positive.over=2",
        "unknown key",
        "at_least",
    ],
    "encoder.kind=lstm": ["encoder.kind='lstm'", "'gru', 'mean', 'decay' or 'attention'"],
    "encoder.dim=0": ["encoder.dim=0", "greater than or equal to 1"],
    "paths.num_nodes=many": ["paths.num_nodes='many'", "valid integer", "'auto'"],
    "paths.num_nodes=1": ["paths.num_nodes=1", "greater than or equal to 2", "'auto'"],
    "paths.nodes=[512]": ["paths: nodes=[512] with num_nodes=auto and num_layers=2", "two layers or more"],
    "paths.nodes=[]": ["paths: nodes=[] with", "two layers or more"],
    "paths.nodes=[512, 1]": ["paths.nodes.1=1", "greater than or equal to 2"],
    "paths.nodes=512": ["paths.nodes=512", "valid tuple"],
    "paths={nodes: [512, 32], num_nodes: 16}": ["paths: nodes=[512, 32] with num_nodes=16", "nodes=null"],
    "paths={nodes: [512, 32], num_layers: 3}": ["paths: nodes=[512, 32]", "num_layers=3", "nodes=null"],
    "penalty.alpha=-1": ["penalty.alpha=-1", "greater than or equal to 0", "'auto'"],
    "penalty.alpha=.nan": ["penalty.alpha=nan", "finite"],
    "serving.beam=0": ["serving.beam=0", "greater than or equal to 1"],
    "serving={beam: 4, candidates: 40}": ["serving", "beam and candidates", "set one of them"],
    "evaluation.k=[10, a]": ["evaluation.k.1='a'", "valid integer"],
    "preprocess.positive={kind: threshold, at_least: x}": ["preprocess.positive.at_least='x'", "valid number"],
    "preprocess.positive.kind=some": ["preprocess.positive", "'some'", "'all', 'threshold'"],
    "spark.conf={a: 1}": ["spark.conf.a=1", "valid string"],
    "paths=3": ["paths=3", "PathsConfig"],
    "name=null": ["name=None", "valid string"],
    "encoder.num_numeric=1": ["encoder.context_cardinalities and encoder.num_numeric", "hold no context features"],
    "encoder={kind: attention, dim: 9}": ["encoder", "num_heads=2 must divide dim=9"],
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_key_or_value_gives_one_line_with_key_value_and_what_is_allowed(minimal: str, override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(minimal, [override])
    message = str(caught.value)
    assert message.startswith(f"{minimal}: {WRONG[override][0]}")
    assert "\n" not in message
    for part in WRONG[override]:
        assert part in message
    assert caught.value.exit_code == 2


def test_all_wrong_keys_are_counted(minimal: str) -> None:
    with pytest.raises(ConfigError, match=r"\(and 2 more\)$"):
        load_config(minimal, ["encoder.dim=0", "paths.num_nodes=x", "samples.bogus=1"])


def test_what_is_required_is_named_when_missing() -> None:
    with pytest.raises(ConfigError, match="here: name: Field required"):
        validate_config({"dataset": {}}, "here")


@pytest.mark.parametrize("override", ["paths", "=3", "paths.num_layers", "name.first=1", "a=[1"])
def test_an_override_that_cannot_be_read_is_refused(minimal: str, override: str) -> None:
    with pytest.raises(ConfigError, match="--set") as caught:
        load_config(minimal, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [1", "is not YAML"), ("- 1\n- 2", "must hold keys"), ("", "Field required")]
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(str(file))
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(str(tmp_path / "missing.yaml"))


def models(kind: type[BaseModel]) -> list[type[BaseModel]]:
    found = [kind]
    for field in kind.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += models(field.annotation)
    return found


def test_every_key_says_what_it_does_and_no_section_takes_unknown_ones() -> None:
    for model in models(RunConfig):
        assert model.model_config["extra"] == "forbid"
        assert model.model_config["frozen"]
        undocumented = [name for name, field in model.model_fields.items() if not field.description]
        assert undocumented == [], model.__name__


def test_a_history_longer_than_the_encoder_reaches_is_refused_at_once(minimal: str) -> None:
    with pytest.raises(ConfigError, match=r"1024 positions, serving.history_length is 2000"):
        load_config(minimal, ["encoder.kind=attention", "serving.history_length=2000"])
    assert load_config(minimal, ["encoder.kind=gru", "serving.history_length=2000"]).history_length == 2000


def test_the_served_length_is_measured_first(minimal: str) -> None:
    assert load_config(minimal, ["serving.k=20", "evaluation.k=[5, 20]"]).list_lengths == (20, 5)


def test_a_file_says_only_what_differs_from_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "base",
                "dataset": {"format": "parquet", "columns": {"user": "who", "item": "what"}},
                "preprocess": {"positive": {"kind": "threshold", "column": "label", "at_least": 4}},
                "evaluation": {"k": [50, 200]},
            }
        )
    )
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "one.yaml").write_text(
        "base: ../base.yaml\nname: one\ndataset: {columns: {item: sku}}\n"
        "preprocess: {positive: {kind: flag, column: label}}\nevaluation: {k: [20]}\n"
    )
    config = load_config(str(tmp_path / "deeper" / "one.yaml"), ["dataset.columns.user=name"])
    assert (config.name, config.dataset.format) == ("one", "parquet")
    assert (config.dataset.columns.user, config.dataset.columns.item) == ("name", "sku")
    assert config.preprocess.positive.kind == "flag", "a section of another kind is replaced whole"
    assert config.evaluation.k == (20,), "a list is replaced"


def test_a_base_that_is_missing_or_leads_back_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\nname: a")
    with pytest.raises(ConfigError, match=r"b\.yaml, the base of .*a\.yaml, does not exist"):
        load_config(str(tmp_path / "a.yaml"))
    (tmp_path / "b.yaml").write_text("base: a.yaml")
    with pytest.raises(ConfigError, match="circle"):
        load_config(str(tmp_path / "a.yaml"))
    (tmp_path / "b.yaml").write_text("base: [1]")
    with pytest.raises(ConfigError, match="expected the name of another YAML file"):
        load_config(str(tmp_path / "a.yaml"))


FORMER = {
    "name": "old",
    "dataset": {"format": "synthetic"},
    "samples": {"history_length": 40},
    "evaluation": {"k": [5, 20], "filter_history": False, "candidates_per_item": 4.0},
}


def test_former_names_of_keys_mean_what_they_meant(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "pipelines.config.load"):
        config = validate_config(FORMER, "old.yaml")
    assert config.serving.model_dump() == {
        "k": 5,
        "beam": "auto",
        "candidates": 20,
        "filter_history": False,
        "history_length": 40,
    }
    assert (config.training.validation_k, config.training.validation_filtered) == (5, False)
    assert config.list_lengths == (5, 20)
    assert "old.yaml: samples.history_length is called serving.history_length now" in caplog.text
    assert FORMER["samples"] == {"history_length": 40}, "what was read is left alone"


def test_former_names_of_settings_say_nothing_about_the_list_that_is_served(caplog: pytest.LogCaptureFixture) -> None:
    former = {
        "paths": {"spare": 1.5},
        "mixed_targets": {"top": 30, "probes": 5, "head": 0},
        "evaluation": {"k": [5], "difference_shares": [0.5]},
    }
    with caplog.at_level("INFO", "pipelines.config.load"):
        config = validate_config(MINIMAL | former, "old.yaml")
    mixed = config.mixed_targets
    assert (mixed.best_items, mixed.probed_groups, mixed.always_scored) == (30, 5, 0)
    assert (config.paths.path_length_slack, config.evaluation.compare_at_shares) == (1.5, (0.5,))
    assert (config.serving.k, config.training.validation_k) == (10, 10), "the first of evaluation.k was not served"
    assert sorted(record.getMessage() for record in caplog.records) == [
        "old.yaml: evaluation.difference_shares is called evaluation.compare_at_shares now",
        "old.yaml: mixed_targets.head is called mixed_targets.always_scored now",
        "old.yaml: mixed_targets.probes is called mixed_targets.probed_groups now",
        "old.yaml: mixed_targets.top is called mixed_targets.best_items now",
        "old.yaml: paths.spare is called paths.path_length_slack now",
    ]


def test_a_setting_that_has_one_value_left_may_still_be_named() -> None:
    config = validate_config(MINIMAL | {"reranker": {"negatives": "popularity", "num_negatives": 7}}, "old.yaml")
    assert config.reranker.num_negatives == 7
    with pytest.raises(ConfigError, match=r"old\.yaml: reranker\.negatives='log_uniform': unknown key"):
        validate_config(MINIMAL | {"reranker": {"negatives": "log_uniform"}}, "old.yaml")


def test_a_former_name_is_not_outvoted_in_silence_by_the_name_of_today() -> None:
    both = MINIMAL | {"paths": {"spare": 3.0, "path_length_slack": 1.5}}
    message = r"world\.yaml: paths\.spare=3\.0: it is called paths\.path_length_slack now, which is set as well"
    with pytest.raises(ConfigError, match=message):
        validate_config(both, "world.yaml")
    same = MINIMAL | {"paths": {"spare": 1.5, "path_length_slack": 1.5}}
    assert validate_config(same, "world.yaml").paths.path_length_slack == 1.5


def test_an_older_record_is_read_and_one_of_another_project_is_named() -> None:
    record = {"run_id": "r", "config": MINIMAL | {"evaluation": {"k": [7], "beam": 3}}}
    config = recorded_config(record, "runs/r.json")
    assert (config.serving.k, config.serving.beam, config.training.validation_k) == (7, 3, 7)
    assert recorded_config(record | {"version": 2, "config": MINIMAL}, "runs/r.json").serving.k == 10
    without_bound = MINIMAL | {"preprocess": {"min_time": None}}
    assert recorded_config({"version": 2, "config": without_bound}, "runs/r.json").preprocess.min_time is None
    with pytest.raises(InputError, match=r"runs/r\.json was written by another version .*paths\.gone=1: unknown key"):
        recorded_config({"config": MINIMAL | {"paths": {"gone": 1}}}, "runs/r.json")
    with pytest.raises(InputError, match="holds no configuration"):
        recorded_config({"run_id": "r"}, "runs/r.json")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("dataset.delimiter=|", "|"),
        ("dataset.delimiter=::", "::"),
        ("dataset.delimiter=\t", "\t"),
        ("dataset.delimiter=\\t", "\t"),
        ('dataset.delimiter="\\t"', "\t"),
        ("dataset.delimiter='|'", "|"),
        ("dataset.delimiter= ", " "),
        ("dataset.delimiter=,", ","),
        ("dataset.delimiter=#", "#"),
        ("dataset.path=2024", "2024"),
        ("dataset.path=logs/2024: a #1.csv", "logs/2024: a #1.csv"),
        ("dataset.columns.user=51", "51"),
        ("dataset.columns.time=on", "on"),
        ("dataset.columns.time=null", None),
        ("dataset.catalogue=", None),
        ("dataset.column_names=[user, no, 3]", ("user", "no", "3")),
    ],
)
def test_text_on_the_command_line_is_itself_whatever_yaml_takes_it_for(
    minimal: str, override: str, value: object
) -> None:
    found: object = load_config(minimal, [override])
    for part in override.partition("=")[0].split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize("text", ["", "null", "''"])
def test_an_empty_delimiter_is_one_line(minimal: str, text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"dataset.delimiter=.*a delimiter cannot be empty; write tab, comma"
    ) as caught:
        load_config(minimal, [f"dataset.delimiter={text}"])
    assert "\n" not in str(caught.value)

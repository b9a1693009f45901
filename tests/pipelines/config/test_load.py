"""One configuration: strict, overridable, and clear about what is wrong."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from dr_core.errors import ConfigError
from pipelines.config.load import load_config, validate_config
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


def test_the_last_override_of_a_key_wins_over_the_file(minimal: str) -> None:
    assert load_config(minimal, ["name=a", "name=b"]).name == "b"


def test_identity_follows_every_value_but_those_of_the_session(minimal: str) -> None:
    plain = load_config(minimal).identity()
    assert load_config(minimal, ["spark.master=local[3]", "spark.conf={a: b}"]).identity() == plain
    changes = ["seed=1", "encoder.dim=8", "paths.paths_per_item=3", "em.rounds=5"]
    identities = {load_config(minimal, [change]).identity() for change in changes}
    assert len(identities | {plain}) == 5


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
    "penalty.alpha=-1": ["penalty.alpha=-1", "greater than or equal to 0", "'auto'"],
    "penalty.alpha=.nan": ["penalty.alpha=nan", "finite"],
    "evaluation.beam=0": ["evaluation.beam=0", "greater than or equal to 1"],
    "evaluation.k=[]": ["evaluation.k", "at least 1 item"],
    "evaluation.k=[10, a]": ["evaluation.k.1='a'", "valid integer"],
    "preprocess.positive={kind: threshold, at_least: x}": ["preprocess.positive.at_least='x'", "valid number"],
    "preprocess.positive.kind=some": ["preprocess.positive", "'some'", "'all', 'threshold'"],
    "spark.conf={a: 1}": ["spark.conf.a=1", "valid string"],
    "paths=3": ["paths=3", "PathsConfig"],
    "name=null": ["name=None", "valid string"],
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

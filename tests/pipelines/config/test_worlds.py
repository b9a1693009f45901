"""Every configuration that comes with the project loads."""

from pathlib import Path

import pytest

from dr_core.learning.budget import choose_structure
from pipelines.config.load import load_config

WORLDS = sorted((Path(__file__).parents[3] / "conf").glob("*.yaml"))


@pytest.mark.parametrize("world", WORLDS, ids=lambda path: path.stem)
def test_world_loads_and_gives_a_structure(world: Path) -> None:
    config = load_config(str(world))
    assert config.name == world.stem
    choice = choose_structure(config, 50_000, config.paths.paths_per_item)
    assert choice.space.num_paths * choice.items_per_visited_path >= 50_000

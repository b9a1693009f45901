"""Figures of known mappings, and what is refused."""

import numpy as np
import pytest

from dr_core.paths.health import HealthLimits, check_health, measure_health
from dr_core.paths.space import PathSpace

SPACE = PathSpace.even(10, 2)


def test_an_even_mapping_has_entropy_one_and_gini_zero() -> None:
    health = measure_health(np.arange(600).reshape(300, 2) % 100, SPACE)
    assert health.normalized_entropy == pytest.approx(1.0)
    assert health.gini == pytest.approx(0.0, abs=1e-12)
    assert (health.occupied_paths, health.largest_path, health.mean_path) == (100, 6, 6.0)
    assert health.visited_path == pytest.approx(6.0)
    assert check_health(health, HealthLimits(), 300) == []


def test_a_path_for_every_item_in_a_large_space_is_even_too() -> None:
    health = measure_health(np.arange(50)[:, np.newaxis] * 1000, PathSpace.even(100, 4))
    assert health.usable_paths == 50
    assert health.normalized_entropy == pytest.approx(1.0)
    assert health.gini == pytest.approx(0.0, abs=1e-12)


def test_one_path_for_all_is_named_a_collapse() -> None:
    health = measure_health(np.full((500, 1), 7), SPACE)
    assert health.normalized_entropy == 0.0
    assert health.gini == pytest.approx(0.99)
    problems = check_health(health, HealthLimits(), 500)
    assert [problem.split(":")[0] for problem in problems] == ["collapse", "collapse"]
    assert "500 of 500" in problems[0]
    assert all("raise alpha" in problem for problem in problems)


def test_a_few_items_on_a_path_are_no_collapse_of_a_small_catalogue() -> None:
    """4 of 50 items are 8 %, and 11 of 50 are 22 %: the share counts above ten items."""

    def problems(largest: int, num_items: int = 50) -> list[str]:
        paths = np.arange(num_items)[:, np.newaxis]
        paths[:largest] = 0
        return check_health(measure_health(paths, PathSpace.even(100, 2)), HealthLimits(), num_items)

    assert problems(4) == problems(10) == []
    (problem,) = problems(11)
    assert problem.startswith("collapse: the largest path holds 11 of 50 items (22.0%)")
    assert problems(11, num_items=1000) == []
    assert len(problems(51, num_items=1000)) == 1


def test_each_limit_names_itself_its_figure_and_a_remedy() -> None:
    paths = np.full((1000, 1), 3)
    paths[:4, 0] = [-1, 0, 1, 2]
    health = measure_health(paths, PathSpace.even(100, 3))
    limits = HealthLimits(max_gini=0.9)
    problems = check_health(health, limits, 1000)
    for name in HealthLimits.model_fields:
        assert any(name in problem for problem in problems) or name in ("min_normalized_entropy",)
    assert any("1 of 1000 items have no path" in problem for problem in problems)
    assert any("at least 0.500" in problem for problem in problems)


@pytest.mark.parametrize("seed", range(5))
def test_gini_and_entropy_equal_their_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    paths = np.minimum(rng.geometric(0.1, size=(400, 1)), 99)
    health = measure_health(paths, SPACE)
    sizes = np.bincount(paths.ravel(), minlength=100).astype(float)
    differences = np.abs(sizes[:, np.newaxis] - sizes).sum()
    assert health.gini == pytest.approx(differences / (2 * 100 * sizes.sum()))
    shares = sizes[sizes > 0] / sizes.sum()
    assert health.normalized_entropy == pytest.approx(-(shares * np.log(shares)).sum() / np.log(100))
    assert health.visited_path == pytest.approx(sizes[paths.ravel()].mean())


def test_padding_counts_as_no_path_only_where_the_whole_row_is_empty() -> None:
    health = measure_health([[1, -1], [-1, -1], [2, 3]], SPACE)
    assert health.items_without_path == 1
    assert health.occupied_paths == 3


def test_layers_of_different_sizes_count_by_their_product() -> None:
    health = measure_health(np.arange(600).reshape(300, 2) % 60, PathSpace((20, 3)))
    assert (health.usable_paths, health.occupied_paths, health.mean_path) == (60, 60, 10.0)
    assert health.gini == pytest.approx(0.0, abs=1e-12)


def test_a_mapping_without_paths_is_measured_and_refused() -> None:
    health = measure_health(np.full((3, 2), -1), SPACE)
    assert health.occupied_paths == 0
    assert check_health(health, HealthLimits(), 3)


def test_impossible_input_is_refused() -> None:
    with pytest.raises(ValueError, match="must lie in"):
        measure_health([[100]], SPACE)
    with pytest.raises(ValueError, match="must be"):
        measure_health([1, 2], SPACE)
    with pytest.raises(ValueError, match="num_items"):
        check_health(measure_health([[1]], SPACE), HealthLimits(), 0)

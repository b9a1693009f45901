"""The Petastorm seam: who reads which rows, in which order, in how many steps."""

from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from dr_core.errors import InputError
from dr_core.model.objective import Batch
from pipelines.stages.training.petastorm import PetastormSource, read_files, read_rows, row_group_sizes
from pipelines.storage.samples_format import COLUMNS

SamplesWriter = Callable[..., dict[str, np.ndarray]]
LOCAL = fsspec.filesystem("file")
NUM_ROWS = 67


@pytest.fixture
def folder(tmp_path: Path, write_samples: SamplesWriter) -> str:
    """67 rows in 8 files of 8 or 9, in a folder whose name would be a pattern."""
    where = tmp_path / "W[1] {a,b}"
    where.mkdir()
    write_samples(str(where / "samples"), num_rows=NUM_ROWS, num_files=8)
    return str(where / "samples")


def numbers(columns: dict[str, np.ndarray]) -> list[int]:
    return columns["context_numeric"][:, 0].astype(int).tolist()


def rows_of(batch: Batch) -> list[int]:
    return batch.context_numeric_BM[:, 0].int().tolist()


def read(folder: str, shard: int = 0, num_shards: int = 1, seed: int = 0) -> list[int]:
    groups = read_rows(LOCAL, folder, shard=shard, num_shards=num_shards, seed=seed)
    return [row for group in groups for row in numbers(group)]


@pytest.mark.parametrize("num_shards", [1, 2, 3, 4])
def test_every_row_is_read_exactly_once_over_all_shards(folder: str, num_shards: int) -> None:
    for repeat in range(3):
        shards = [read(folder, shard, num_shards, seed=repeat) for shard in range(num_shards)]
        assert sorted(row for shard in shards for row in shard) == list(range(NUM_ROWS))


def test_rows_of_files_with_several_row_groups_are_read_exactly_once(tmp_path: Path, write_samples) -> None:
    where = str(tmp_path / "samples")
    write_samples(where, num_rows=NUM_ROWS, num_files=3, groups_per_file=3)
    assert len(row_group_sizes(LOCAL, where)) == 9
    shards = [read(where, shard, 2) for shard in range(2)]
    assert sorted(shards[0] + shards[1]) == list(range(NUM_ROWS))


def test_columns_come_as_they_were_written(tmp_path: Path, write_samples: SamplesWriter) -> None:
    where = str(tmp_path / "samples")
    columns = write_samples(where, num_rows=20, num_files=4)
    for group in read_rows(LOCAL, where, shard=0, num_shards=1, seed=0):
        for name in COLUMNS:
            np.testing.assert_array_equal(group[name], columns[name][numbers(group)])


@pytest.mark.parametrize("num_shards", [1, 2])
def test_same_seed_same_order_and_another_seed_another_order(folder: str, num_shards: int) -> None:
    orders = [read(folder, 0, num_shards, seed) for seed in (7, 7, 7, 8)]
    assert orders[0] == orders[1] == orders[2]
    assert orders[0] != orders[3]


def test_files_are_read_in_the_order_of_their_names(folder: str) -> None:
    rows = [row for part in read_files(LOCAL, folder) for row in numbers(part)]
    assert rows == list(range(NUM_ROWS))


def test_too_few_row_groups_or_none_is_an_input_error(folder: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="8 row groups for 9 ranks"):
        next(iter(read_rows(LOCAL, folder, shard=0, num_shards=9, seed=0)))
    with pytest.raises(InputError, match="8 row groups for 9 ranks"):
        source(folder, num_shards=9)
    with pytest.raises(InputError, match="no Parquet file"):
        row_group_sizes(LOCAL, str(tmp_path / "nowhere"))


def source(folder: str, shard: int = 0, num_shards: int = 1, **more: int) -> PetastormSource:
    return PetastormSource(LOCAL, folder, more.pop("batch_rows", 5), shard=shard, num_shards=num_shards, **more)


@pytest.mark.parametrize("batch_rows", [1, 5, 9, 200])
@pytest.mark.parametrize("num_shards", [1, 2, 3, 4])
def test_ranks_take_the_same_number_of_steps(folder: str, num_shards: int, batch_rows: int) -> None:
    """Also where shards hold unequal numbers of rows and of row groups (8 groups on 3 shards)."""
    announced = {
        source(folder, shard, num_shards, batch_rows=batch_rows).steps_per_epoch for shard in range(num_shards)
    }
    assert len(announced) == 1
    for epoch in range(2):
        delivered = [
            [rows_of(batch) for batch in source(folder, shard, num_shards, batch_rows=batch_rows).batches(epoch)]
            for shard in range(num_shards)
        ]
        assert {len(batches) for batches in delivered} == announced
        rows = [row for batches in delivered for batch in batches for row in batch]
        assert len(rows) == len(set(rows))
        assert all(len(batch) == batch_rows for batches in delivered for batch in batches[:-1])
        assert all(batch for batches in delivered for batch in batches)


@pytest.mark.parametrize(("batch_rows", "window"), [(5, 4), (5, 1), (7, 100), (100, 2)])
def test_one_rank_reads_every_row_once_an_epoch(folder: str, batch_rows: int, window: int) -> None:
    batches = list(source(folder, batch_rows=batch_rows, window=window).batches(0))
    assert sorted(row for batch in batches for row in rows_of(batch)) == list(range(NUM_ROWS))


def test_batches_mix_rows_of_several_row_groups(folder: str) -> None:
    first = rows_of(next(iter(source(folder, batch_rows=12).batches(0))))
    assert len({row // 9 for row in first}) > 2


def test_an_epoch_repeats_itself_and_differs_from_the_next(folder: str) -> None:
    orders = [
        [row for batch in source(folder, seed=seed).batches(epoch) for row in rows_of(batch)]
        for seed, epoch in ((3, 0), (3, 0), (3, 1), (4, 0))
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != orders[3]


def test_row_groups_come_in_another_order_each_epoch(tmp_path: Path, write_samples: SamplesWriter) -> None:
    """Eight files of eight rows: without mixing, a batch of eight is one file."""
    write_samples(str(tmp_path / "even"), num_rows=64, num_files=8)
    one_by_one = source(str(tmp_path / "even"), batch_rows=8, window=1)
    orders = [[{row // 8 for row in rows_of(batch)} for batch in one_by_one.batches(epoch)] for epoch in range(4)]
    assert all(len(files) == 1 for order in orders for files in order)
    assert len({str(order) for order in orders}) == 4


@pytest.mark.parametrize("first_step", [1, 5, 13, 14])
def test_resuming_skips_to_the_same_batches(folder: str, first_step: int) -> None:
    whole = list(source(folder).batches(2))
    rest = list(source(folder).batches(2, first_step))
    assert len(whole) == 14
    assert len(rest) == 14 - first_step
    for one, other in zip(whole[first_step:], rest, strict=True):
        assert torch.equal(one.history_BL, other.history_BL)
        assert torch.equal(one.target_BPT, other.target_BPT)
        assert rows_of(one) == rows_of(other)

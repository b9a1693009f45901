"""Algorithm 2 over items that come block by block (Deep Retrieval, section 3): only the path sizes stay in memory."""

from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dr_core.arrays import read_only
from dr_core.paths._descent import exchange_moves, sweep_items
from dr_core.paths.assignment import find_fillers
from dr_core.paths.penalty import Penalty
from dr_core.paths.scores import PathCandidates
from dr_core.paths.sizes import DENSE_LIMIT, PathSizes
from dr_core.paths.space import PathSpace

STEP_ROWS = 4096
"""Items that a thread sweeps before it learns what the others moved."""


class StreamingDescent:
    """Sweeps of coordinate descent over blocks of items. Use it as a context.

    Blocks passed one after the other give exactly the sweep that :func:`coordinate_descent` makes over all of them,
    with one thread. With more, each keeps sizes of its own and learns the others' moves after every ``step_rows``
    items: the result is the same in every run, and differs from one thread's as if that many items moved at once.

    Partitions of the items that start from the same sizes side by side, on machines that do not see each other's moves,
    say so with ``scale``: a move counts that many times in the sizes the partition goes by, as if every other did the
    same, and an item moves only where that pays even with a quarter of the others at its side; without this they would
    all rush into the same short paths. Sum the changes of sizes of all, divided by ``scale``, before the next sweep.
    With more than one, the penalised surrogate may fall in a sweep: measure it with :func:`log_score` and
    ``Penalty.total``. After 5 sweeps of items dealt at random, with alpha as :func:`derive_alpha` gives it, it has gained
    at least 99 % of what one gains for 2 partitions, 98 % for 4 and 90 % for 16 where the mean path holds 45 items; the
    more partitions, and the fewer items on a path, the less.

    Args:
        sizes: of all paths, over all items, those of other partitions too.
        num_paths: path ids lie below this; the dense table of sizes takes 4 bytes a path and thread.
        penalty: f and alpha.
        scale: partitions swept side by side elsewhere from the same sizes: what a move counts for here.
        num_threads: threads that share each block.
        step_rows: items a thread sweeps at a time.
        space: [K]^D, needed only if an item has to be given paths from outside its candidates.

    Raises:
        ValueError: more paths than a dense table holds, or fewer than one thread, part or row.
    """

    def __init__(
        self,
        sizes: PathSizes,
        num_paths: int,
        penalty: Penalty,
        *,
        scale: int = 1,
        num_threads: int = 1,
        step_rows: int = STEP_ROWS,
        space: PathSpace | None = None,
    ) -> None:
        if num_paths > DENSE_LIMIT:
            raise ValueError(f"{num_paths} path ids are more than a dense table's {DENSE_LIMIT}: number those in use")
        if min(scale, num_threads, step_rows) < 1:
            raise ValueError(f"scale={scale}, num_threads={num_threads}, step_rows={step_rows} must be at least 1")
        self.penalty, self.scale, self.step_rows, self.space = penalty, scale, step_rows, space
        table = sizes.of(np.arange(num_paths))
        self._tables = [table, *(table.copy() for _ in range(num_threads - 1))]
        self._pool = ThreadPoolExecutor(num_threads)

    def __enter__(self) -> "StreamingDescent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    @property
    def sizes(self) -> PathSizes:
        """|c| of all paths as of now, each move counted ``scale`` times."""
        return PathSizes(self._tables[0])

    def sweep(self, block: PathCandidates) -> tuple[NDArray[Any], int]:
        """One coordinate step for every slot of the block's items.

        Args:
            block: of any integer and float types; nothing but ``current_paths`` and lengths is read twice.

        Returns:
            The paths after it, [n, J] of the type of ``current_paths``, and how many slots changed.

        Raises:
            ValueError: a path id lies outside the table, or ``space`` is missing where an item needs paths from outside
                its candidates.
        """
        num_paths = len(self._tables[0])
        for name, path_ids in (("path_ids", block.path_ids), ("current_paths", block.current_paths)):
            if path_ids.size and int(path_ids.max()) >= num_paths:
                raise ValueError(f"{name} hold {int(path_ids.max())}, but there are {num_paths} paths")
        paths = block.current_paths.copy()
        filler_row, fillers = find_fillers(block, paths, self.sizes, self.space)
        num_threads, changed = len(self._tables), 0

        def rows(first: int, last: int, table: NDArray[np.int32]) -> int:
            return int(
                sweep_items(
                    read_only(block.offsets[first : last + 1]),
                    read_only(block.path_ids),
                    read_only(block.scores),
                    read_only(block.weights[first:last]),
                    paths[first:last],
                    table,
                    self.scale,
                    self.penalty.alpha,
                    self.penalty.power,
                    filler_row[first:last],
                    fillers,
                )
            )

        if num_threads == 1:
            return paths, rows(0, len(paths), self._tables[0])
        for start in range(0, len(paths), self.step_rows * num_threads):
            edges = np.minimum(start + self.step_rows * np.arange(num_threads + 1), len(paths)).tolist()
            changed += sum(self._pool.map(rows, edges[:-1], edges[1:], self._tables))

            def learn(number: int, edges: list[int] = edges) -> None:
                for other in range(num_threads):
                    if other != number:
                        span = slice(edges[other], edges[other + 1])
                        exchange_moves(self._tables[number], block.current_paths[span], paths[span], self.scale)

            list(self._pool.map(learn, range(num_threads)))
        return paths, changed

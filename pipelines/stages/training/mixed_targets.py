"""Mixed targets: the samples again, with items drawn from the frozen softmax beside the true events."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import SparkSession

from dr_core.learning.mixed_targets import ItemGroups, MixedTargetsConfig, TargetSampler, draw_seed, with_drawn
from pipelines.spark.worker_cache import cached_array, cached_model, file_identity, model_identity
from pipelines.stages.blocks import block_batches, encode_batch, map_blocks, read_samples
from pipelines.stages.training.samples import write_row_groups
from pipelines.storage.workdir import Workdir


def mix_targets(
    spark: SparkSession,
    workdir: Workdir,
    *,
    samples: str,
    name: str,
    model_id: str,
    groups_uri: str,
    config: MixedTargetsConfig,
    seed: int,
) -> dict[str, int]:
    """Write table ``name``: ``samples`` with ``config.draws`` more targets a position, carrying ``config.share`` of the weight.

    From here on this table defines (x_i, y_i, w_i): the E-step, s[v, c] and N_v all read it. Draws depend on the seed
    and the block alone.

    Args:
        groups_uri: ``.npy`` of an int64 [V] label that groups similar items; read with many items only.
    """
    frame = read_samples(spark, workdir, samples)
    model_uri = workdir.path("models", model_id)
    identity, groups_identity = model_identity(model_uri), file_identity(groups_uri)

    def mix(table: pa.Table) -> pa.Table:
        model = cached_model(model_uri, identity)
        groups = None
        if model.num_items > config.exact_below:
            groups = ItemGroups.from_labels(np.array(cached_array(groups_uri, groups_identity)))
        sampler = TargetSampler(model.reranker, config, groups)
        table = table.sort_by([("user", "ascending"), ("row", "ascending")])
        block = int(table.column("block")[0].as_py())
        targets, weights = [], []
        for number, batch in enumerate(block_batches(table)):
            user_NE, target_NT, weight_NT = encode_batch(model, batch)
            drawn_NM = sampler.sample(user_NE, seed=draw_seed(seed, block, number))
            target_NT, weight_NT = with_drawn(target_NT, weight_NT, drawn_NM, config.share)
            used_BP = batch.position_BP >= 0
            shape = (*batch.position_BP.shape, target_NT.shape[1])
            target_BPT, weight_BPT = torch.full(shape, -1, dtype=torch.int64), torch.zeros(shape)
            target_BPT[used_BP], weight_BPT[used_BP] = target_NT, weight_NT
            targets.append(target_BPT.flatten(1).numpy().astype(np.int32))
            weights.append(weight_BPT.flatten(1).numpy())
        return _with_columns(table, np.concatenate(targets), np.concatenate(weights))

    mixed = map_blocks(frame, mix, frame.schema).persist()
    try:
        rows = mixed.count()
        write_row_groups(spark, workdir, name, mixed, rows, len(frame.inputFiles()), seed)
    finally:
        mixed.unpersist()
    return {"rows_in": frame.count(), "rows_out": rows}


def _with_columns(table: pa.Table, targets: np.ndarray, weights: np.ndarray) -> pa.Table:  # type: ignore[type-arg]
    for name, values in (("targets", targets), ("weights", weights)):
        offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
        column = pa.ListArray.from_arrays(offsets, pa.array(values.ravel()))
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table

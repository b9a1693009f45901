"""Training through the launcher: real ranks, real files, the same result for the same seed."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from dr_core.errors import DeepRetrievalError, InputError
from dr_core.learning.checkpoint import load_model, read_manifest
from dr_core.learning.trainer import Phase, TrainingConfig, near_best
from dr_core.model.encoder import EncoderConfig
from dr_core.model.objective import batch_from_arrays
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure_config import StructureConfig
from pipelines.stages.training.train import TrainJob, train_model
from pipelines.storage.workdir import Workdir

SamplesWriter = Callable[..., dict[str, np.ndarray]]
NUM_ITEMS = 30
WARM_UP = (Phase("warm_up", "warm_up", 2),)
E_STEP = (Phase("e_step", "frozen", 2),)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory, write_samples: SamplesWriter) -> Workdir:
    workdir = Workdir(str(tmp_path_factory.mktemp("train")))
    write_samples(workdir.table("samples"), num_items=NUM_ITEMS)
    workdir.write_array(np.arange(1.0, NUM_ITEMS + 1), "models", "counts.npy")
    paths = np.random.default_rng(81).permuted(np.tile(np.arange(16), (NUM_ITEMS, 1)), axis=1)[:, :2]
    workdir.write_array(paths, "models", "paths.npy")
    validation = write_samples(
        str(tmp_path_factory.mktemp("validation") / "v"), num_rows=16, num_items=NUM_ITEMS, seed=1
    )
    workdir.write_arrays({name: validation[name] for name in validation if name != "user"}, "models", "validation.npz")
    return workdir


@pytest.fixture
def job(workdir: Workdir) -> TrainJob:
    """One process, eight rows a step."""
    return TrainJob(
        workdir=workdir.uri,
        samples="tables/samples",
        model_id="m",
        phases=WARM_UP,
        seed=0,
        nodes=(4, 4),
        encoder=EncoderConfig(dim=8),
        structure=StructureConfig(hidden=8, path_dim=4),
        reranker=RerankerConfig(),
        training=TrainingConfig(batch_rows=8, num_processes=1, learning_rate=0.02, checkpoint_every=3),
        counts_file="models/counts.npy",
    )


def parameters(workdir: Workdir, model_id: str) -> dict[str, torch.Tensor]:
    return dict(load_model(workdir.filesystem, workdir.path("models", model_id)).state_dict())


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name.split(".")[0] for name in one if not torch.equal(one[name], other[name])}


def test_two_processes_train_one_model_that_loads(
    spark: SparkSession, workdir: Workdir, job: TrainJob, capfd: pytest.CaptureFixture[str]
) -> None:
    """Started by Spark's TorchDistributor; what the ranks print never reaches this process' stdout."""
    training = job.training.model_copy(update={"num_processes": 2})
    results = train_model(replace(job, model_id="two", training=training, validation_file="models/validation.npz"))
    manifest = read_manifest(workdir.filesystem, workdir.path("models", "two"))
    assert manifest["ranks"] == 2
    assert [(result.phase, result.epoch) for result in results] == [("warm_up", 0), ("warm_up", 1)]
    assert results[1].loss_softmax < results[0].loss_softmax

    model = load_model(workdir.filesystem, workdir.path("models", "two"))
    validation = batch_from_arrays(dict(np.load(workdir.path("models", "validation.npz"))))
    with torch.no_grad():
        _, softmax, weight = model(validation, False, True)
    kept = near_best(results)[-1]
    assert float(softmax / weight) == pytest.approx(kept.validation_loss, rel=1e-5)
    assert float(model.recall(validation, 10, filtered=True).mean()) == pytest.approx(kept.validation_recall)

    records = [json.loads(line) for line in workdir.read_text("models", "two", "metrics.jsonl").splitlines()]
    assert [record["event"] for record in records] == ["epoch", "epoch"]
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "warm_up epoch 2: softmax" in captured.err
    assert not workdir.exists("models", "two", "checkpoints")


def test_same_seed_same_parameters(workdir: Workdir, job: TrainJob) -> None:
    for model_id, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_model(replace(job, model_id=model_id, seed=seed))
    first = parameters(workdir, "a")
    assert differing(first, parameters(workdir, "b")) == set()
    assert {"encoder", "reranker"} <= differing(first, parameters(workdir, "c"))


def test_training_killed_half_way_goes_on_to_the_same_model(workdir: Workdir, job: TrainJob) -> None:
    """In either of two phases; the second one's checkpoints do not disturb the first one's result."""
    phases = (Phase("joint", "joint", 2), *E_STEP)
    base = replace(job, phases=phases, paths_file="models/paths.npy")
    whole = train_model(replace(base, model_id="whole"))
    for crash_at in (5, 12):
        with pytest.raises(InterruptedError):
            train_model(replace(base, model_id="killed", crash_at=crash_at))
        with pytest.raises(InputError, match="no finished model"):
            load_model(workdir.filesystem, workdir.path("models", "killed"))
    results = train_model(replace(base, model_id="killed"))
    assert differing(parameters(workdir, "whole"), parameters(workdir, "killed")) == set()
    figures = [[(r.phase, r.epoch, r.loss_structure, r.loss_softmax) for r in run] for run in (whole, results)]
    assert figures[0] == figures[1]


def test_e_step_starts_from_a_model_and_moves_only_its_structure(workdir: Workdir, job: TrainJob) -> None:
    train_model(replace(job, model_id="warm"))
    e_step = replace(job, phases=E_STEP, paths_file="models/paths.npy", start_from="warm", model_id="e")
    results = train_model(e_step)
    assert differing(parameters(workdir, "warm"), parameters(workdir, "e")) == {"structure"}
    assert results[1].loss_structure < results[0].loss_structure
    assert [result.loss_softmax for result in results] == [None, None]


def test_a_model_of_another_shape_gives_what_fits(workdir: Workdir, job: TrainJob) -> None:
    train_model(replace(job, model_id="warm2"))
    e_step = replace(
        job, phases=E_STEP, paths_file="models/paths.npy", start_from="warm2", model_id="wide", nodes=(6, 6)
    )
    train_model(e_step)
    before, after = parameters(workdir, "warm2"), parameters(workdir, "wide")
    kept = {name: value for name, value in before.items() if not name.startswith("structure")}
    assert differing(kept, after) == set()
    assert load_model(workdir.filesystem, workdir.path("models", "wide")).space.num_nodes == 6


def test_a_rank_that_fails_is_a_typed_error(
    spark: SparkSession, job: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spark's launcher raises a bare RuntimeError with the ranks' last lines."""

    def fail(*args: object) -> None:
        raise RuntimeError("Command [...] failed with return code 1")

    monkeypatch.setattr(TorchDistributor, "run", fail)
    training = job.training.model_copy(update={"num_processes": 2})
    with pytest.raises(DeepRetrievalError, match=r"a rank that trained failing failed: .* return code 1"):
        train_model(replace(job, model_id="failing", training=training))


def test_more_ranks_than_row_groups_are_refused_before_any_starts(job: TrainJob) -> None:
    training = job.training.model_copy(update={"num_processes": 5})
    with pytest.raises(InputError, match="4 row groups for 5 ranks"):
        train_model(replace(job, model_id="five", training=training))

"""The training loop: what resuming, several ranks, phases and early stopping may and may not change."""

import json
import math
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from dr_core.errors import DeepRetrievalError
from dr_core.learning.checkpoint import MANIFEST, read_manifest
from dr_core.learning.trainer import (
    BatchSource,
    EpochResult,
    Phase,
    PhaseKind,
    Trainer,
    TrainingConfig,
    Validation,
    near_best,
    schedule,
)
from dr_core.model.objective import Batch, DeepRetrievalModel, StateBatch
from dr_core.model.reranker import RerankerConfig

ModelMaker = Callable[..., DeepRetrievalModel]
LOCAL = fsspec.filesystem("file")
JOINT = Phase("joint", "joint", 3)
CONFIG = TrainingConfig(learning_rate=0.02, structure_learning_rate=0.02, checkpoint_every=3)


@pytest.fixture
def fresh_model(make_model: ModelMaker) -> Callable[[], DeepRetrievalModel]:
    """A function that makes the same untrained model each time, with dropout."""

    def make() -> DeepRetrievalModel:
        return make_model(num_items=24, num_paths=2, encoder={"dropout": 0.3})

    return make


def parameters(model: DeepRetrievalModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def losses(results: list[EpochResult]) -> list[tuple[float | None, ...]]:
    return [(r.epoch, r.loss_structure, r.loss_softmax, r.validation_loss, r.validation_recall) for r in results]


def test_training_lowers_both_losses(fresh_model, make_source) -> None:
    results = Trainer(fresh_model(), make_source(8), Phase("joint", "joint", 8), CONFIG, seed=0).run()
    assert results[-1].loss_structure < 0.8 * results[0].loss_structure
    assert results[-1].loss_softmax < 0.8 * results[0].loss_softmax


def test_same_seed_same_parameters(fresh_model, make_source) -> None:
    trained = []
    for seed in (0, 0, 1):
        model = fresh_model()
        Trainer(model, make_source(), JOINT, CONFIG, seed=seed).run()
        trained.append(parameters(model))
    assert_same(trained[0], trained[1])
    assert not torch.equal(trained[0]["encoder.gru.weight_hh_l0"], trained[2]["encoder.gru.weight_hh_l0"])


def test_epoch_losses_are_means_a_unit_of_weight(fresh_model, make_source) -> None:
    """At a learning rate near 0 and without dropout, an epoch's loss is that of the untouched model."""
    model, source = fresh_model(), make_source()
    model.encoder.input_dropout.p = model.encoder.output_dropout.p = 0.0
    still = TrainingConfig(learning_rate=1e-12, structure_learning_rate=1e-12)
    with torch.no_grad():
        sums = np.sum([[float(part) for part in model(batch, True, True)] for batch in source.held], axis=0)
    (result,) = Trainer(model, source, Phase("once", "joint", 1), still, seed=0).run()
    assert result.loss_structure == pytest.approx(sums[0] / sums[2], rel=1e-5)
    assert result.loss_softmax == pytest.approx(sums[1] / sums[2], rel=1e-5)


@pytest.mark.parametrize("crash_at", [1, 3, 5, 8, 10])
def test_resuming_after_a_crash_equals_an_uninterrupted_run(
    fresh_model, make_source, validation: Validation, tmp_path: Path, crash_at: int
) -> None:
    """Four steps an epoch, a checkpoint at step 3 of each and at its end; dropout, Adam and early stop included."""
    whole = fresh_model()
    expected = Trainer(whole, make_source(), JOINT, CONFIG, seed=3, validation=validation).run()

    options = {"seed": 3, "validation": validation, "checkpoints": (LOCAL, str(tmp_path))}
    with pytest.raises(InterruptedError):
        Trainer(fresh_model(), make_source(), JOINT, CONFIG, crash_at=crash_at, **options).run()
    source, resumed = make_source(), fresh_model()
    found = Trainer(resumed, source, JOINT, CONFIG, **options).run()
    assert_same(parameters(resumed), parameters(whole))
    assert losses(found) == losses(expected)
    finished = {1: 0, 3: 3, 5: 4, 8: 7, 10: 8}[crash_at]
    assert source.delivered == 12 - finished, (
        "steps before the newest checkpoint were trained again, or some were left out"
    )


def test_a_torn_checkpoint_gives_way_to_the_one_before(
    fresh_model, make_source, validation: Validation, tmp_path: Path
) -> None:
    whole = fresh_model()
    Trainer(whole, make_source(), JOINT, CONFIG, seed=3, validation=validation).run()
    options = {"seed": 3, "validation": validation, "checkpoints": (LOCAL, str(tmp_path))}
    for crash_at in (5, 8, 11):
        with pytest.raises(InterruptedError):
            Trainer(fresh_model(), make_source(), JOINT, CONFIG, crash_at=crash_at, **options).run()
        held = {turn: read_manifest(LOCAL, f"{tmp_path}/{turn}") for turn in (0, 1)}
        newest = max(held, key=lambda turn: (held[turn]["epoch"], held[turn]["step"]))
        (tmp_path / str(newest) / MANIFEST).unlink()
    resumed = fresh_model()
    Trainer(resumed, make_source(), JOINT, CONFIG, **options).run()
    assert_same(parameters(resumed), parameters(whole))


def test_changed_checkpoints_are_left_alone(fresh_model, make_source, tmp_path: Path) -> None:
    whole = fresh_model()
    Trainer(whole, make_source(), JOINT, CONFIG, seed=3).run()
    for damaged in ("0", "1", "01"):
        options = {"seed": 3, "checkpoints": (LOCAL, str(tmp_path / damaged))}
        with pytest.raises(InterruptedError):
            Trainer(fresh_model(), make_source(), JOINT, CONFIG, crash_at=11, **options).run()
        for turn in damaged:
            file = tmp_path / damaged / turn / "model.safetensors"
            file.write_bytes(file.read_bytes()[:-1])
        resumed = fresh_model()
        Trainer(resumed, make_source(), JOINT, CONFIG, **options).run()
        assert_same(parameters(resumed), parameters(whole))


def test_every_checkpoint_leaves_the_one_before_whole(fresh_model, make_source, tmp_path: Path, monkeypatch) -> None:
    from dr_core.learning import checkpoint

    turns: list[str] = []
    write = checkpoint.write_tensors

    def record(filesystem, folder, *rest, **options):
        turns.append(folder)
        return write(filesystem, folder, *rest, **options)

    monkeypatch.setattr(checkpoint, "write_tensors", record)
    for every in (1, 2, 3, 100):
        turns.clear()
        config = CONFIG.model_copy(update={"checkpoint_every": every})
        folder = str(tmp_path / str(every))
        Trainer(fresh_model(), make_source(), JOINT, config, seed=0, checkpoints=(LOCAL, folder)).run()
        assert len(turns) >= 3
        assert all(one != other for one, other in zip(turns, turns[1:], strict=False))


def test_a_checkpoint_of_dense_tables_is_ignored_by_sparse_ones(make_model, make_source, tmp_path: Path) -> None:
    outcomes = []
    for folder in (None, (LOCAL, str(tmp_path))):
        if folder is not None:
            with pytest.raises(InterruptedError):
                Trainer(
                    sparse_model(make_model), make_source(), JOINT, CONFIG, seed=3, checkpoints=folder, crash_at=6
                ).run()
        model, sparse = sparse_model(make_model), CONFIG.model_copy(update={"sparse_rows": 200})
        Trainer(model, make_source(), JOINT, sparse, seed=3, checkpoints=folder).run()
        outcomes.append(parameters(model))
    assert_same(*outcomes)


@pytest.mark.parametrize("change", ["identity", "seed", "phase"])
def test_checkpoint_of_another_training_is_ignored(fresh_model, make_source, tmp_path: Path, change: str) -> None:
    same = {"seed": 3, "identity": "pi", "phase": JOINT}
    other = (
        same
        | {"identity": {"identity": "pi'"}, "seed": {"seed": 4}, "phase": {"phase": Phase("joint", "joint", 4)}}[change]
    )
    folder = (LOCAL, str(tmp_path))

    def train(options: dict, **more: object) -> tuple[DeepRetrievalModel, list[dict]]:
        model, reports = fresh_model(), []
        named = {"seed": options["seed"], "identity": options["identity"], "report": reports.append}
        Trainer(model, make_source(), options["phase"], CONFIG, **named, **more).run()
        return model, reports

    with pytest.raises(InterruptedError):
        train(same, checkpoints=folder, crash_at=6)
    model, reports = train(other, checkpoints=folder)
    alone, _ = train(other)
    assert [record["event"] for record in reports].count("resumed") == 0
    assert_same(parameters(model), parameters(alone))


@pytest.mark.parametrize(
    ("kind", "learns"),
    [("warm_up", {"encoder", "reranker"}), ("frozen", {"structure"}), ("joint", {"encoder", "reranker", "structure"})],
)
def test_a_phase_changes_only_what_it_trains(fresh_model, make_source, kind: PhaseKind, learns: set[str]) -> None:
    model = fresh_model()
    before = parameters(model)
    config = CONFIG.model_copy(update={"weight_decay": 0.1})
    (result,) = Trainer(model, make_source(), Phase("only", kind, 1), config, seed=0).run()
    after = parameters(model)
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == learns
    assert (result.loss_structure is None) == ("structure" not in learns)
    assert (result.loss_softmax is None) == ("reranker" not in learns)


def test_weight_decay_shrinks_the_tables_and_leaves_the_structure_alone(fresh_model, make_source) -> None:
    decayed = CONFIG.model_copy(update={"weight_decay": 0.1})

    def learned(kind: PhaseKind, config: TrainingConfig) -> DeepRetrievalModel:
        model = fresh_model()
        Trainer(model, make_source(), Phase("only", kind, 1), config, seed=0).run()
        return model

    assert_same(parameters(learned("frozen", CONFIG)), parameters(learned("frozen", decayed)))
    plain, smaller = learned("warm_up", CONFIG), learned("warm_up", decayed)
    for table in ("encoder.item_embedding", "reranker.output_embedding"):
        assert smaller.get_submodule(table).weight.norm() < plain.get_submodule(table).weight.norm()


def test_a_frozen_encoder_drops_nothing(fresh_model, make_source) -> None:
    """The structure model learns from the states that it will be asked about."""
    outcomes = []
    for dropout in (0.0, 0.3):
        model = fresh_model()
        model.encoder.input_dropout.p = model.encoder.output_dropout.p = dropout
        Trainer(model, make_source(), Phase("e", "frozen", 1), CONFIG, seed=0).run()
        outcomes.append(parameters(model))
    assert_same(*outcomes)


@dataclass(frozen=True)
class Turning:
    """Targets are item 0 before the epoch ``turn`` and item 1 from then on."""

    source: BatchSource
    turn: int

    @property
    def steps_per_epoch(self) -> int:
        return self.source.steps_per_epoch

    def batches(self, epoch: int, first_step: int) -> Iterable[Batch | StateBatch]:
        return (
            wanting(batch, int(epoch >= self.turn))
            for batch in self.source.batches(epoch, first_step)
            if isinstance(batch, Batch)
        )


def wanting(batch: Batch, item: int) -> Batch:
    return replace(batch, target_BPT=torch.full_like(batch.target_BPT, item))


def test_early_stop_keeps_the_last_epoch_that_is_not_clearly_worse(
    fresh_model, make_source, validation: Validation
) -> None:
    """The validation users want what is learned until the third epoch, and forgotten afterwards."""
    asked = Validation(wanting(validation.batch, 0), k=1, filtered=False)
    config = TrainingConfig(learning_rate=0.1, structure_learning_rate=0.1, patience=2)
    model, phase = fresh_model(), Phase("warm_up", "warm_up", 40)
    results = Trainer(model, Turning(make_source(), 3), phase, config, seed=0, validation=asked).run()
    kept = max(result.epoch for result in results if result.validation_recall == 1)
    assert [result.validation_recall for result in results[kept + 1 :]] == [0] * config.patience
    until_then, source = fresh_model(), Turning(make_source(), 3)
    with pytest.raises(InterruptedError):
        Trainer(until_then, source, phase, config, seed=0, crash_at=(kept + 1) * source.steps_per_epoch).run()
    assert_same(parameters(model), parameters(until_then))


def test_epochs_within_the_error_of_the_best_are_as_good() -> None:
    def epoch(recall: float, error: float) -> EpochResult:
        return EpochResult("w", 0, None, 1.0, 1.0, 1.0, 1.0, recall, error)

    results = [epoch(0.1, 0.2), epoch(0.36, 0.01), epoch(0.4, 0.05), epoch(0.34, 0.2), epoch(0.37, 0.0)]
    assert [result.validation_recall for result in near_best(results)] == [0.36, 0.4, 0.37]


def test_validation_with_sampled_negatives_repeats_itself(
    make_model: ModelMaker, make_source, validation: Validation
) -> None:
    """The same negatives every epoch: what moves is the model alone."""
    model = make_model(num_items=24, reranker=RerankerConfig(loss="sampled", num_negatives=5))
    still = TrainingConfig(learning_rate=1e-12)
    results = Trainer(model, make_source(), Phase("w", "warm_up", 3), still, seed=0, validation=validation).run()
    assert len({round(result.validation_loss, 6) for result in results}) == 1


def test_nothing_to_do_changes_nothing(fresh_model, make_source) -> None:
    model = fresh_model()
    before = parameters(model)
    assert Trainer(model, make_source(), Phase("none", "joint", 0), CONFIG, seed=0).run() == []
    assert_same(before, parameters(model))


def test_a_reader_that_gives_too_few_steps_is_found_out(fresh_model, make_source) -> None:
    source = make_source()
    source.steps_per_epoch += 1
    with pytest.raises(DeepRetrievalError, match="4 steps in epoch 0, 5 were announced"):
        Trainer(fresh_model(), source, JOINT, CONFIG, seed=0).run()


@pytest.mark.parametrize("total", [1, 7, 20, 1000])
def test_learning_rate_rises_once_then_falls(total: int) -> None:
    rates = [schedule(step, total) for step in range(total)]
    peak = int(np.argmax(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[peak] == pytest.approx(1.0, abs=1e-6)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert peak <= max(1, total // 20)
    assert math.isfinite(schedule(total, total))


def sparse_model(make_model: ModelMaker) -> DeepRetrievalModel:
    """A model whose steps touch six sampled rows and those of the batch, of 200."""
    return make_model(num_items=200, num_paths=2, reranker=RerankerConfig(loss="sampled", num_negatives=6))


def test_sparse_tables_learn_resume_and_leave_other_rows_alone(make_model, make_source, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"sparse_rows": 200})
    whole = sparse_model(make_model)
    before = parameters(whole)
    trainer = Trainer(whole, make_source(8), JOINT, config, seed=3)
    results = trainer.run()
    assert list(trainer.optimizers) == ["optimizer", "tables"]
    assert results[-1].loss_softmax < 0.95 * results[0].loss_softmax
    after = parameters(whole)
    moved = (before["encoder.item_embedding.weight"] != after["encoder.item_embedding.weight"]).any(1)
    assert moved[1:25].all(), "every item of the histories learned"
    assert not moved[25:].any(), "no other row was touched"

    options = {"seed": 3, "checkpoints": (LOCAL, str(tmp_path))}
    with pytest.raises(InterruptedError):
        Trainer(sparse_model(make_model), make_source(8), JOINT, config, crash_at=13, **options).run()
    resumed = sparse_model(make_model)
    assert losses(Trainer(resumed, make_source(8), JOINT, config, **options).run()) == losses(results)
    assert_same(parameters(resumed), after)


@pytest.mark.parametrize("reason", ["few rows", "full softmax"])
def test_tables_stay_dense(make_model, make_source, reason: str) -> None:
    model = sparse_model(make_model) if reason == "few rows" else make_model(num_items=200, num_paths=2)
    config = CONFIG.model_copy(update={"sparse_rows": 201 if reason == "few rows" else 1})
    assert list(Trainer(model, make_source(), JOINT, config, seed=0).optimizers) == ["optimizer"]


@pytest.mark.parametrize("tables", ["dense", "sparse"])
def test_two_ranks_learn_what_one_learns(tmp_path: Path, tables: str) -> None:
    """The same rows a step, dealt unequally: losses agree within 5 % (parameters within 1e-3, and the validation users'
    recall, of which each rank judges its share); the ranks, and a training that was killed and resumed, to the last bit, the
    recall by which they stop included. Sampled negatives are each rank's own: more of them, so that only the first losses
    can agree."""
    script = Path(__file__).with_name("two_ranks.py")
    root = Path(__file__).parents[3]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "GLOO_SOCKET_IFNAME": "lo"}
    for world in (1, 2):
        (tmp_path / str(world)).mkdir()
    ranks = [
        subprocess.Popen([sys.executable, str(script), str(tmp_path / "2"), str(rank), "2", tables], env=environment)
        for rank in range(2)
    ]
    try:
        runpy.run_path(str(script))["main"](tmp_path / "1", 0, 1, tables)
        assert [rank.wait(timeout=240) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()

    def outcome(name: str) -> tuple[list[list[float]], dict[str, torch.Tensor]]:
        file = tmp_path / name
        return json.loads(file.with_suffix(".json").read_text()), torch.load(file.with_suffix(".pt"))

    (alone, one), (first, left) = outcome("1/rank0"), outcome("2/rank0")
    for name in ("2/rank1", "2/resumed0", "2/resumed1"):
        figures, values = outcome(name)
        assert figures == first
        assert_same(values, left)
    losses_first, losses_alone = (np.array(figures)[:, :3] for figures in (first, alone))
    judged_first, judged_alone = (np.array(figures)[:, 2:] for figures in (first, alone))
    if tables == "sparse":
        np.testing.assert_allclose(losses_first[0], losses_alone[0], rtol=0.1)
        return
    np.testing.assert_allclose(losses_first, losses_alone, rtol=0.05)
    np.testing.assert_allclose(judged_first, judged_alone, rtol=1e-3)
    for name, value in one.items():
        torch.testing.assert_close(left[name], value, rtol=1e-3, atol=1e-3)

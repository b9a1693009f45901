"""The measurement of a run: Deep Retrieval, its controls and brute force, on the same test users.

Per-user figures of every point are kept in ``runs/<run_id>.points.npz``, so that seeds can be put together, intervals
drawn and the report made again without measuring again.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

from dr_core.evaluation.evaluator import EvaluationUsers, Evaluator, choose_beam, nearest
from dr_core.learning.budget import served_candidates
from dr_core.learning.states import States
from dr_core.model.objective import DeepRetrievalModel, batch_from_arrays
from dr_core.retrieval.energy_kernel import CompiledEnergies
from dr_core.retrieval.router import Width, as_settings, width_of
from pipelines.evaluation.controls import Controls
from pipelines.evaluation.learned_run import LearnedRun, without_items
from pipelines.evaluation.measurement import Measurement
from pipelines.evaluation.methods import BRUTE_FORCE, PATHS_ONLY, POPULARITY, SUBJECT, of_family
from pipelines.evaluation.users import kept_users
from pipelines.stages.training.petastorm import read_files

logger = logging.getLogger(__name__)


def measure(run: LearnedRun) -> dict[str, Any]:
    """Measure a run and save it: Deep Retrieval first, then the controls one by one, each saved when it is done.

    A control that cannot be trained, or fails, loses nothing: the others go on, and the record names it.

    Returns:
        What the run's record keeps: ``rows_in``, ``rows_out``, ``beam``, ``controls_failed`` (by name, why) and
        ``controls_left_out`` (why none was trained, or None).
    """
    if not len(run.test):
        return _nobody_to_measure(run)
    evaluator = evaluator_of(run, run.learned.model, run.test, most_candidates(run))
    measurement = measure_learned(run, evaluator, served_width(run))
    measurement.save(run.workdir, run.run.run_id)
    left_out, failed = no_controls(run), {}
    if left_out is None:
        try:
            controls = controls_of(run)
        except Exception as error:
            logger.exception("  the controls cannot be prepared")
            left_out = f"{type(error).__name__}: {error}"
        else:
            failed = measure_controls(run, controls, evaluator, measurement)
    if left_out is not None:
        logger.info("  no trained controls: %s", left_out)
    return {
        "rows_in": len(run.test),
        "rows_out": sum(len(points) for points in measurement.curves.values()),
        **as_settings(measurement.width),
        "controls_failed": failed,
        "controls_left_out": left_out,
    }


def _nobody_to_measure(run: LearnedRun) -> dict[str, Any]:
    """Save an empty measurement: a release without figures."""
    logger.info("  nobody is held out as a test user (split.num_test=0): the release has no figures")
    width = served_width(run)
    Measurement({}, {}, width).save(run.workdir, run.run.run_id)
    said = {"controls_failed": {}, "controls_left_out": "no test users"}
    return {"rows_in": 0, "rows_out": 0, **as_settings(width), **said}


def measure_learned(run: LearnedRun, evaluator: Evaluator, width: Width) -> Measurement:
    """Measure Deep Retrieval at a width and along its curve, beside what needs no training."""
    curves = {
        SUBJECT: evaluator.curve(run.learned, up_to=most_candidates(run), including=width),
        BRUTE_FORCE: [evaluator.brute_force],
    }
    served = next(point for point in curves[SUBJECT] if point.width == width)
    operating = {
        SUBJECT: served,
        PATHS_ONLY: evaluator.measure_paths_only(run.learned, width, method=PATHS_ONLY),
        BRUTE_FORCE: evaluator.brute_force,
        POPULARITY: evaluator.popularity(),
    }
    sizes = [round(share * run.num_items) for share in run.config.evaluation.curve_shares]
    for name in of_family("candidates"):
        curves[name] = evaluator.fixed_size(name, sizes)
        operating[name] = evaluator.fixed_size(name, [round(served.mean_candidates)])[0]
    return Measurement(curves, operating, width)


def no_controls(run: LearnedRun) -> str | None:
    """Return why no control can be trained beside a run; None where they can."""
    if not run.config.evaluation.controls:
        return "evaluation.controls is off"
    if run.why_no_controls is not None:
        return run.why_no_controls
    if not run.has_mapping(0):
        return f"the initial mapping {run.version_id(0)} is gone"
    if not run.workdir.exists("tables", run.samples_name):
        return f"the table {run.samples_name} is gone"
    return None


def controls_of(run: LearnedRun) -> Controls:
    """Return what can be trained beside a run, over its samples' states."""
    model = run.learned.model
    return Controls(
        run.config,
        model,
        load_states(run, model),
        run.choice,
        run.growth,
        run.mapping(0),
        run.validation,
        seed=run.seed,
    )


def measure_controls(
    run: LearnedRun, controls: Controls, evaluator: Evaluator, measurement: Measurement
) -> dict[str, str]:
    """Train the controls one by one and add their points to the measurement, saved after each.

    Returns:
        By name, why a control failed.
    """
    served = measurement.operating[SUBJECT]
    failed = {}
    for name, train in controls.all().items():
        try:
            variant = train()
            active = replace(variant, path_VJ=without_items(variant.path_VJ, run.retired))
            curve = evaluator.curve(active, up_to=most_candidates(run))
        except Exception as error:
            logger.exception("  control %s failed, the run goes on without it", name)
            failed[name] = f"{type(error).__name__}: {error}"
            continue
        measurement.curves[name] = curve
        measurement.operating[name] = nearest(curve, served.mean_candidates)
        measurement.save(run.workdir, run.run.run_id)
    return failed


def most_candidates(run: LearnedRun) -> float:
    """Return the candidates a user at which curves end."""
    return max(run.config.evaluation.curve_shares) * run.num_items


def evaluator_of(run: LearnedRun, model: DeepRetrievalModel, users: EvaluationUsers, up_to: float) -> Evaluator:
    """Build the evaluator of some users under a run's (or another) model.

    Args:
        up_to: most candidates of the exact_candidates curve.
    """
    return Evaluator(
        model,
        users,
        ks=run.config.list_lengths,
        max_length=run.config.history_length,
        counts_V=run.counts,
        max_exact=int(up_to),
        retired=run.retired,
        judges=run.validation,
        candidate_cost=run.config.budget.candidate_cost,
        seed=run.seed,
    )


def served_width(run: LearnedRun) -> Width:
    """Return the width that the run's last version is, or is to be, served with."""
    if run.has_run("serving"):
        return width_of(run.result("serving"))
    return width_of(json.loads(run.workdir.read_text("models", run.last_id, "serving.json")))


def serving_width(run: LearnedRun) -> Width:
    """Return the width: a beam as configured, else the price, or for a product of layers the narrowest beam, at which the
    validation users find as many candidates as are wanted.

    Where nobody is held out, some users of ``user_histories`` take their place: how many candidates a search finds depends
    on histories alone.

    It needs the last model and mapping alone, and is cheap beside :func:`measure`.
    """
    serving = run.config.serving
    if serving.beam != "auto":
        return serving.beam
    wanted = served_candidates(run.config, run.choice)
    users = next((some for some in (run.validation, run.test) if len(some)), None)
    if users is None:
        users = kept_users(run.spark, run.workdir, run.num_items)
    evaluator = evaluator_of(run, run.learned.model, users, wanted)
    retriever = evaluator.retriever_of(run.learned)
    if isinstance(retriever.router, CompiledEnergies):
        return evaluator.prices(retriever).at(wanted)
    return choose_beam(evaluator.curve(run.learned, up_to=wanted), wanted).width or 1


def load_states(run: LearnedRun, model: DeepRetrievalModel) -> States:
    """Encode all samples with a frozen encoder."""
    files = read_files(run.workdir.filesystem, run.workdir.table(run.samples_name))
    return States.encode(model, (batch_from_arrays(columns) for columns in files))

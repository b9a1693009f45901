"""``dr compare``: Deep Retrieval and its baselines on the same users, histories and filter, with their costs.

Seed by seed, every family of methods is a stage of its own: settings chosen on the first seed's validation users, measured
on the test users, kept below ``runs/`` so that a killed comparison goes on where it stopped. Everything is fitted and
timed with one thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from dr_core.baselines.base import Baseline, VectorBaseline
from dr_core.evaluation.evaluator import Point, nearest
from dr_core.evaluation.metrics import user_metrics
from pipelines.config.run import RunConfig
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.evaluation.measurement import Measurement
from pipelines.evaluation.recorded import BASELINE_STAGE, baseline_file
from pipelines.experiments.baselines import BASELINES, RERANKED, SOFTMAX, families_of, offered, settings_of
from pipelines.experiments.choose import Settings, choose
from pipelines.experiments.indexes import (
    EQUAL_WORK,
    Vectors,
    fills_lists,
    measure_index,
    measure_softmax_indexes,
    work,
)
from pipelines.experiments.needs import require_for_comparison
from pipelines.experiments.rerankers import RERANKERS, measure_rerankers
from pipelines.experiments.seed_data import Measured, Points, SeedData
from pipelines.experiments.session import learned_seeds, measured_identity
from pipelines.experiments.streaming_vq import STREAMING_VQ, measure_streaming_vq
from pipelines.experiments.timing import seconds_of_scoring
from pipelines.flows.day_one import Source
from pipelines.report.build import build_report
from pipelines.stages.ingest.interval import Interval

SettingsByMethod = dict[str, tuple[Settings, ...]]


def compare(
    config: RunConfig,
    workdir_uri: str,
    *,
    logs: str | None = None,
    catalogue: str | None = None,
    interval: Interval | None = None,
    methods: Sequence[str] = (),
    num_seeds: int = 1,
    fresh: bool = False,
) -> dict[str, Any]:
    """Run day one, then every baseline; return ``summary.json`` as a document.

    The report keeps all seeds that day one was run with, though the methods be measured on fewer.

    Args:
        methods: families or methods to measure; all of them when empty. What was measured before stays in the report.

    Raises:
        ConfigError: a method is not known.
        InputError: something that the comparison reads is missing from the work folder.
    """
    families_of(methods)
    source = Source(logs, catalogue, interval)
    with learned_seeds("compare", config, workdir_uri, source, num_seeds, fresh=fresh) as runs:
        compare_runs(runs[:num_seeds], methods)
        return build_report(runs)


def compare_runs(runs: Sequence[LearnedRun], methods: Sequence[str] = ()) -> None:
    """Measure the methods beside every run and keep their points; the first run's choice of settings holds for all.

    Args:
        runs: one a seed.
        methods: families or methods; all of them when empty.

    Raises:
        ConfigError: a method is not known.
        InputError: something that the comparison reads is missing; nothing has been fitted.
    """
    families = families_of(methods)
    require_for_comparison(runs)
    chosen: dict[str, Settings] = {}
    for run in runs:
        data = SeedData(run)
        for family in families:
            kept = offered(family)
            stage = BASELINE_STAGE + family
            is_changed = run.has_run(stage) and any(run.result(stage).get(key) != kept[key] for key in kept)
            run.run.stage(
                stage, partial(measure_family, data, family, chosen), redo=is_changed, identity=measured_identity(run)
            )
        if not chosen:
            fits = [fit for family in families for fit in run.result(BASELINE_STAGE + family)["fits"]]
            chosen = {fit["method"]: fit["settings"] for fit in fits}


def measure_family(data: SeedData, family: str, chosen: Mapping[str, Settings]) -> dict[str, Any]:
    """Fit a family, choose its settings, measure its methods, keep their points; return what the record keeps.

    Args:
        chosen: by method, settings that an earlier seed chose: nothing else is tried for these.
    """
    settings = {
        method: (chosen[method],) if method in chosen else tried for method, tried in settings_of(family).items()
    }
    faiss.omp_set_num_threads(1)
    with threadpool_limits(1):
        if family == SOFTMAX:
            points, fits = measure_softmax_indexes(data, settings)
        elif family == STREAMING_VQ:
            points, fits = measure_streaming_vq(data, settings[family])
        elif family == RERANKED:
            points, fits = measure_rerankers(data)
        else:
            points, fits = measure_baseline(data, family, settings)
    curves = {
        method: [point for point, _ in measured] for method, measured in points.items() if method not in RERANKERS
    }
    served = {method: operating_point(method, measured, data.served) for method, measured in points.items()}
    lists = {method: items.astype(np.int32) for method, (_, items) in served.items()}
    operating = {method: point for method, (point, _) in served.items()}
    name = baseline_file(data.run, family)
    Measurement(curves, operating, data.measured.width).save(data.run.workdir, name)
    data.run.workdir.write_arrays(lists, "runs", f"{name}.lists.npz")
    num_points = sum(map(len, points.values()))
    return {"rows_in": len(data.evaluator.users), "rows_out": num_points, "fits": fits, **offered(family)}


def operating_point(method: str, measured: Sequence[Measured], served: Point) -> Measured:
    """Return where a method is read: as near to Deep Retrieval's cost as its full lists allow.

    The cost is that of candidates; for the index that is tuned to equal work, that of multiply-adds.
    """
    full = [entry for entry in measured if fills_lists(entry[1])] or list(measured)
    if method == EQUAL_WORK:
        return min(full, key=lambda entry: abs(work(entry[0]) - work(served)))
    point = nearest([point for point, _ in full], served.mean_candidates)
    return next(entry for entry in full if entry[0] is point)


def measure_baseline(data: SeedData, name: str, settings: SettingsByMethod) -> tuple[Points, list[dict[str, Any]]]:
    """Fit a baseline and measure it and the indexes of its vectors."""
    recipe = BASELINES[name]

    def fit(chosen: Settings) -> Baseline:
        baseline = recipe.build(data.config, chosen, data.run.seed)
        baseline.fit(data.events)
        return baseline

    choice = choose(name, settings[name], fit, partial(validation_recall, data))
    points: Points = {name: [measure_scoring(data, choice.best)]}
    records = [choice.record | {"megabytes": choice.best.megabytes()}]
    if recipe.indexes:
        vectors = vectors_of(data, choice.best)
        for method, kind in recipe.indexes.items():
            points[method], record = measure_index(data, method, kind, vectors, settings[method])
            records.append(record)
    return points, records


def vectors_of(data: SeedData, baseline: Baseline) -> Vectors:
    """Return the vectors of a baseline that scores by an inner product.

    Raises:
        TypeError: it does not.
    """
    if not isinstance(baseline, VectorBaseline):
        raise TypeError(f"{baseline.name} has no vectors that an index could serve")
    histories, _ = data.validation
    return Vectors(baseline.item_VE, baseline.users(data.evaluator.history), baseline.users(histories))


def validation_recall(data: SeedData, baseline: Baseline) -> float:
    """Return recall at the headline k on the validation users, 0 without any."""
    histories, truths = data.validation
    if not len(data.run.validation):
        return 0.0
    found = baseline.retrieve(histories, data.k, filtered=data.filtered, barred=data.run.retired)
    return float(np.nanmean(user_metrics(found, truths, data.k).recall))


def measure_scoring(data: SeedData, baseline: Baseline) -> Measured:
    """Measure a method that scores every item."""
    evaluator, histories = data.evaluator, data.evaluator.history
    num_users = len(evaluator.users)
    point = Point(
        baseline.name,
        None,
        np.full(num_users, float(data.run.num_items)),
        np.ones(num_users),
        baseline.multiply_adds(histories),
        1e6 * seconds_of_scoring(baseline, histories, evaluator.k_max),
    )
    plain_Uk, filtered_Uk = (
        baseline.retrieve(histories, evaluator.k_max, filtered=flag, barred=data.run.retired) for flag in (False, True)
    )
    return data.listed(point, plain_Uk, filtered_Uk)

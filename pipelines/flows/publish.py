"""Publishing: what a release is served with, and the one commit that makes it one."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from dr_core.errors import DeepRetrievalError
from dr_core.learning.checkpoint import read_manifest
from dr_core.retrieval.router import Width, as_settings
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.serving.service import Service
from pipelines.serving.write_bundle import write_bundle
from pipelines.storage.json_text import to_json
from pipelines.storage.publish import publish
from pipelines.storage.releases import Release

logger = logging.getLogger(__name__)


def write_serving(run: LearnedRun, width: Width) -> None:
    """Write ``serving.json`` beside the run's last version: the settings that a retriever of it takes."""
    serving = {
        "release_id": run.last_id,
        "k": run.config.serving.k,
        **as_settings(width),
        "filter_history": run.config.serving.filter_history,
        "history_length": run.config.history_length,
    }
    run.workdir.write_text(to_json(serving), "models", run.last_id, "serving.json")


def publish_version(
    run: LearnedRun,
    status: str,
    *,
    interval: tuple[str | None, str | None],
    learned: list[str],
    gates: dict[str, Any],
    facts: dict[str, Any],
    parent: str | None = None,
) -> Release:
    """Make the run's last version a release.

    Args:
        run: the run.
        status: ``live`` or ``refused``.
        interval: first moment and end of what the release has seen.
        learned: the intervals learned, or ``all``.
        gates: health and, of a refresh, quality and the gates' verdicts.
        facts: what else was counted.
        parent: release that it takes the place of.

    Raises:
        DeepRetrievalError: the version has no finished model.
        PublishConflict: another release than ``parent`` is live.
    """
    folder = run.workdir.path("models", run.last_id)
    manifest = read_manifest(run.workdir.filesystem, folder)
    if manifest is None:
        raise DeepRetrievalError(f"{folder} holds no finished model")
    seconds = round(sum(stage["seconds"] for stage in run.run.record["stages"]), 1)
    release = publish(
        run.spark,
        run.workdir,
        Release(
            release_id=run.last_id,
            status=status,
            interval_start=interval[0],
            interval_end=interval[1],
            parent_release=parent,
            model_uri=folder,
            model_sha256=manifest["sha256"]["model.safetensors"],
            K=run.space.nodes[0],
            D=run.space.num_layers,
            J=run.num_paths,
            num_items=run.num_items,
            config_hash=run.config.identity(),
            gates=to_json(gates),
            created_at=datetime.now(UTC).replace(tzinfo=None),
            bundle_sha256=write_bundle(run.workdir, run.last_id),
            alpha=None if run.m_step["alpha"] is None else float(run.m_step["alpha"]),
            learned=learned,
            facts=to_json(facts | {"seconds": seconds}),
            nodes=list(run.space.nodes),
        ),
    )
    _try_out(run, release)
    logger.info("  release %s is %s", release.release_id, release.status)
    return release


def _try_out(run: LearnedRun, release: Release) -> None:
    """Let the release answer once as it will be served: a fault shows now, and this host has compiled what serving runs."""
    service = Service(run.workdir, release.release_id)
    items = service.bundle.index.item_ids
    if len(items):
        service.explain([service.bundle.keys.keys[int(items[0])]], k=run.config.serving.k)

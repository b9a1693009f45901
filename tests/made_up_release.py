"""A release made up, for tests that need the row and not what it stands for."""

from datetime import datetime

from pipelines.storage.releases import Release

RELEASE = Release(
    release_id="a-1",
    status="live",
    interval_start="2024-01-01",
    interval_end="2024-01-02",
    parent_release=None,
    model_uri="models/a-1",
    model_sha256="ab",
    K=10,
    D=2,
    J=1,
    num_items=3,
    config_hash="cd",
    gates="{}",
    created_at=datetime(2024, 1, 2),
)

"""The columns and partitions of every Delta table."""

from __future__ import annotations


def _schema(text: str) -> dict[str, str]:
    return dict(column.strip().split(" ") for column in text.split(","))


SCHEMAS: dict[str, dict[str, str]] = {
    "items": _schema(
        "item_id int, item_key string, first_seen timestamp, active boolean, title string, category string, creator string"
    ),
    "interactions": _schema(
        "user string, item_id int, event_time timestamp, event_order bigint, weight float,"
        " source_interval string, event_date date"
    ),
    "intervals": _schema(
        "source_interval string, interval_start timestamp, interval_end timestamp, run_id string, rows_in bigint,"
        " kept bigint, quarantined bigint, filtered bigint, late bigint, redelivered bigint, reasons string,"
        " is_first boolean"
    ),
    "user_histories": _schema("user string, item_ids array<int>, event_times array<timestamp>"),
    "seen_items": _schema("user string, item_key string, source_interval string"),
    "quarantine": _schema("reason string, row string, source_file string, source_interval string, user string"),
    "evaluation_users": _schema("user string, role string"),
    "evaluation_histories": _schema("user string, role string, history array<int>, truth array<int>"),
    "path_scores": _schema("release_id string, item_id int, path_id bigint, score double, is_current boolean"),
    "item_stats": _schema("release_id string, item_id int, num_events double"),
    "item_paths": _schema("release_id string, item_id int, rank int, path_id bigint, gain double"),
    "path_items": _schema("release_id string, path_id bigint, item_ids array<int>"),
    "recommendations": _schema(
        "release_id string, user string, rank int, item_id int, item_key string, score float, path_id bigint,"
        " path_probability float"
    ),
    "releases": _schema(
        "release_id string, status string, interval_start string, interval_end string, parent_release string,"
        " model_uri string, model_sha256 string, K int, D int, J int, num_items bigint, config_hash string,"
        " gates string, created_at timestamp, bundle_sha256 string, alpha double, learned array<string>, facts string,"
        " nodes array<int>"
    ),
}


PARTITIONS: dict[str, tuple[str, ...]] = {
    "interactions": ("event_date",),
    "path_scores": ("release_id",),
    "item_stats": ("release_id",),
    "item_paths": ("release_id",),
    "path_items": ("release_id",),
    "recommendations": ("release_id",),
}

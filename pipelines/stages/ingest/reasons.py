"""What each reason of the quarantine means, and the setting that mends it."""

from __future__ import annotations

ZONE_ADVICE = (
    "if days end at local midnight, give --start and --end an offset (2024-01-31T00:00:00-05:00), or set dataset.time_zone;"
    " of a log that also holds later days, preprocess.cumulative=true takes the interval alone"
)
REASONS: dict[str, str] = {
    "undecodable_text": "ids are not valid in the encoding that the text is read in: set dataset.encoding (latin-1,"
    " windows-1252, gbk, …)",
    "malformed_row": "lines have more or fewer fields than their header: check dataset.delimiter, and quotes in the file",
    "null_user": "rows name no user: check dataset.columns.user; dataset.missing_ids lists the texts that mean none",
    "null_item": "rows name no item: check dataset.columns.item; dataset.missing_ids lists the texts that mean none",
    "inexact_id": "ids were written as floats that may have lost digits: write that column as whole numbers or as text",
    "oversized_id": "ids are longer than preprocess.max_id_length: raise it, or check dataset.columns and"
    " dataset.delimiter",
    "null_time": "rows have no time: check dataset.columns.time",
    "unparsable_time": "times cannot be read: name their unit with dataset.time_unit, or their pattern with"
    " dataset.time_format",
    "negative_time": "times lie before 1970: check dataset.time_unit",
    "early_time": "times lie before preprocess.min_time: check dataset.time_unit, or lower preprocess.min_time if events"
    " are that old",
    "future_time": "times lie in the future: check dataset.time_unit; of a log that also holds later days,"
    " preprocess.cumulative=true takes the interval alone",
    "after_interval": f"events lie within a day after the interval's end: {ZONE_ADVICE}",
    "too_late": "events are older than the interval by more than preprocess.late_days: raise it; of a log that also holds"
    " other days, preprocess.cumulative=true takes the interval alone",
    "null_order": "rows have no position: check dataset.columns.order",
    "invalid_rating": "ratings are no numbers: check dataset.columns.rating",
    "invalid_label": "labels are no numbers, and no words for yes or no: check dataset.columns.label",
    "invalid_weight": "weights are no numbers: check dataset.columns.weight",
    "negative_weight": "weights are below 0: check dataset.columns.weight",
    "duplicate_row": "rows repeat another in every column: if they are events of their own, set"
    " preprocess.duplicate_rows=keep; else deliver the log once",
    "outside_interval": "events lie outside the interval: check --start and --end, and dataset.time_zone",
    "not_positive": "rows are no positives: check preprocess.positive",
    "redelivered": "events were brought by another interval: the log was delivered before",
    "repeated_pair": "an event of that user with that item is kept already (preprocess.repeated_pairs)",
    "too_few_events": "users have fewer than preprocess.min_events events",
    "catalogue_undecodable_text": "ids are not valid in the encoding that the text is read in: set"
    " dataset.catalogue_file.encoding (latin-1, windows-1252, gbk, …)",
    "catalogue_malformed_row": "lines have more or fewer fields than the catalogue's header: check dataset.delimiter, and"
    " quotes in the file",
    "catalogue_null_item": "rows name no item: check dataset.catalogue_columns.item",
    "catalogue_inexact_id": "ids were written as floats that may have lost digits: write that column as whole numbers or"
    " as text",
    "catalogue_duplicate_item": "the item stands in an earlier row of the catalogue, which counts",
    "catalogue_unknown_active": "the word is none for active or inactive: write true or false, or check"
    " dataset.catalogue_columns.active",
}
"""Reason to meaning and remedy, of rows of logs (those that are filtered too) and of catalogues (``catalogue_…``)."""
TIME_REASONS = ("unparsable_time", "negative_time", "early_time", "future_time", "too_late")
"""Reasons that a wrong unit or pattern of times leads to."""

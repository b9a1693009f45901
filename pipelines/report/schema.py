"""What the report's two JSON files have in common: frozen records, null for what is not finite, refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from dr_core.errors import InputError
from pipelines.storage.json_text import plain

Number = int | float
SHOWN_FAULTS = 5


class Record(BaseModel):
    """A frozen part of a document; unknown keys are refused, NaN and infinity become null."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _plain_or_null(cls, value: Any) -> Any:
        return value if isinstance(value, BaseModel) else plain(value)


Document = TypeVar("Document", bound=Record)


def parse(model: type[Document], content: Document | Mapping[str, Any], file: str) -> Document:
    """Return a document as a checked model.

    Args:
        file: names it in the error.

    Raises:
        InputError: a key is unknown or missing, or a value has the wrong type; the message names each.
    """
    if isinstance(content, model):
        return content
    try:
        return model.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:SHOWN_FAULTS]
        )
        raise InputError(f"{file} is malformed ({error.error_count()} faults): {faults}") from error

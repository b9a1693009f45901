"""The base of every configuration object: frozen, and strict about unknown keys."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen pydantic model that refuses unknown keys; each field's docstring gives its unit and effect."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

"""A configuration from YAML and ``--set a.b=value``; one line says what is wrong with it."""

from __future__ import annotations

import logging
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from dr_core.errors import ConfigError, InputError
from pipelines.config.renamed import renamed_keys
from pipelines.config.run import RunConfig

logger = logging.getLogger(__name__)
WHOLE = "(whole file)"
"""Key of a problem that lies between sections; its message names them."""


def load_config(path: str, overrides: list[str] | None = None) -> RunConfig:
    """Read a YAML file and apply ``a.b=value`` overrides (values are YAML).

    A file may name another one as its ``base``: it then says only what differs.

    Raises:
        ConfigError: one line naming the file, the key, the value and what is allowed.
    """
    tree = _read_tree(Path(path), ())
    for override in overrides or []:
        _set(tree, override)
    return validate_config(tree, path)


def _read_tree(file: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """Return a file's keys over those of its base."""
    if not file.is_file():
        named = f", the base of {above[-1]}," if above else ""
        raise ConfigError(f"config file {file}{named} does not exist; conf/ holds the ones that come with the project")
    if file.resolve() in [other.resolve() for other in above]:
        raise ConfigError(f"base: {' -> '.join(map(str, (*above, file)))} goes round in a circle")
    try:
        tree = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{file} must hold keys and values, found {type(tree).__name__}")
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{file}: base={base!r}: expected the name of another YAML file")
    return _merged(_read_tree(file.parent / base, (*above, file)), tree)


def _merged(base: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the keys of ``tree`` over it, section by section; a section of another ``kind`` replaces it."""
    result = dict(base)
    for key, value in tree.items():
        before = result.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            is_other_kind = "kind" in before and value.get("kind", before["kind"]) != before["kind"]
            value = value if is_other_kind else _merged(before, value)
        result[key] = value
    return result


def recorded_config(record: dict[str, Any], source: str) -> RunConfig:
    """Return the configuration that a run's record holds, also one that an older version of the project wrote.

    Args:
        record: of :class:`pipelines.storage.run_record.Run`.
        source: its file, named in errors.

    Raises:
        InputError: there is none, or it holds what this version does not know.
    """
    if not isinstance(record.get("config"), dict):
        raise InputError(f"{source} holds no configuration: that run was begun by hand or by an older version")
    try:
        return validate_config(record["config"], source, is_first_form=record.get("version", 1) < 2)
    except ConfigError as error:
        raise InputError(f"{source} was written by another version of the project ({error}): use that one") from error


def validate_config(tree: dict[str, Any], source: str, *, is_first_form: bool = False) -> RunConfig:
    """Check a configuration tree, keys by their former names included.

    Args:
        tree: as read.
        source: named in errors.
        is_first_form: whether it was written when the first of ``evaluation.k`` was served.

    Raises:
        ConfigError: names the first wrong key.
    """
    try:
        tree, notes = renamed_keys(tree, is_first_form=is_first_form)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    for note in notes:
        logger.info("%s: %s", source, note)
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    """Return the first wrong key, its value and what is allowed there; the members of a union are alternatives."""
    problems: dict[str, list[str]] = {}
    shown = ""
    for detail in error.errors():
        location = detail["loc"]
        if detail["type"] == "extra_forbidden":
            parts, names = _locate(location[:-1])
            parts, message = [*parts, str(location[-1])], f"unknown key; allowed here: {', '.join(names)}"
        else:
            parts, message = _locate(location)[0], detail["msg"].removeprefix("Value error, ")
        if not problems and not isinstance(detail["input"], dict):
            shown = f"={detail['input']!r}"
        problems.setdefault(".".join(parts) or WHOLE, []).append(message)
    key, messages = next(iter(problems.items()))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    where = "" if key == WHOLE else f"{key}{shown}: "
    return f"{where}{', or: '.join(dict.fromkeys(messages))}{more}"


def _locate(location: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """Return a location as the parts of a key, without the tags by which pydantic tells union members, and the keys
    that may stand below it."""
    annotation: Any = RunConfig
    parts = []
    for part in location:
        models = _models(annotation)
        field = next((model.model_fields[part] for model in models if part in model.model_fields), None)
        if field is not None:
            parts.append(str(part))
            annotation = field.annotation
        elif isinstance(part, str) and get_origin(annotation) in (Union, UnionType):
            tagged = [model for model in models if part in get_args(model.model_fields["kind"].annotation)]
            annotation = tagged[0] if tagged else annotation
        else:
            parts.append(str(part))
            annotation = next(iter(get_args(annotation)), None)
    return parts, [name for model in _models(annotation) for name in model.model_fields]


def _models(annotation: Any) -> list[type[BaseModel]]:
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]


def _set(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override}: expected key=value, for example --set paths.num_layers=3")
    kind = _annotation(key)
    *parents, leaf = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override}: {parent} is a value, not a section")
    members = set(get_args(kind)) if get_origin(kind) in (Union, UnionType) else {kind}
    if str in members and not members - {str, type(None)}:
        tree[leaf] = _text(text, is_optional=type(None) in members)
        return
    try:
        tree[leaf] = yaml.load(text, yaml.BaseLoader) if kind == tuple[str, ...] else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: {text!r} is not a YAML value") from error


def _annotation(key: str) -> Any:
    """Return the type of the field that a key names; None where there is none."""
    annotation: Any = RunConfig
    for part in key.split("."):
        field = next((model.model_fields[part] for model in _models(annotation) if part in model.model_fields), None)
        annotation = field.annotation if field else None
    return _plain(annotation)


def _plain(annotation: Any) -> Any:
    """Return a type, or a union of types, without what validates it."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return Union[tuple(_plain(member) for member in get_args(annotation))]  # noqa: UP007
    return annotation


def _text(text: str, *, is_optional: bool) -> str | None:
    """Return the value of a text field: text in quotes is YAML, other text is itself, whatever YAML takes it for."""
    bare = text.strip()
    if bare == "null" or (is_optional and bare in ("", "~")):
        return None
    if bare[:1] in ("'", '"'):
        try:
            value = yaml.safe_load(bare)
        except yaml.YAMLError:
            value = None
        if isinstance(value, str):
            return value
    return bare or text

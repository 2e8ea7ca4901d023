"""``config_cross_validation.json`` for an MMAR without one: how any model is evaluated at a site.

It is ``config_validation.json``, or else the section ``validate`` of ``config_train.json``, with
the network itself as ``model``. Whose weights it gets is said at run time: in a federation the
server gives them; for ``mmar evaluate`` a CheckpointLoader reads them, which sites leave out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mmar_runtime.config.loader import SETTINGS
from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import first_level_primitives
from mmar_runtime.config.upgrades.draft import TRANSFORM_LISTS, Draft, objects
from mmar_runtime.config.variables import names_in
from mmar_runtime.errors import ConfigError, Problem

Document = Mapping[str, Any]

VERSION = "CLARA_TRAIN_VERSION"
CHECKPOINT_LOADER = {
    "name": "CheckpointLoader",
    "args": {"load_path": "{MMAR_CKPT}", "load_dict": {"model": "@model"}},
}
OF_TRAINING = ("CheckpointSaver", "TensorBoardStatsHandler")
"""Handlers of ``validate`` that keep what the site itself has trained; not for models of others."""


def cross_validation_document(
    train: Document, validation: Document | None, environment: Document
) -> dict[str, Any] | None:
    """Return the document; None if ``config_train.json`` has no network or nothing to validate by.

    Args:
        train: ``config_train.json`` as its author wrote it.
        validation: ``config_validation.json``, if there is one.
        environment: ``environment.json``, whose variables win over those of either.

    Raises:
        ConfigError: the network asks for a variable that both documents set, to different values.
    """
    section = train.get("train") if isinstance(train, dict) else None
    model = section.get("model") if isinstance(section, dict) else None
    if not isinstance(model, dict):
        return None
    if isinstance(validation, dict):
        document = dict(validation)
    elif isinstance(train.get("validate"), dict):
        document = _of_validate_section(train)
    else:
        return None
    document["model"] = model
    wanted = (name for name in _names(model) if name not in environment)
    document = {**_values(train, wanted, document), **document}
    handlers = document.setdefault("handlers", [])
    if isinstance(handlers, list) and not any(
        isinstance(handler, dict) and handler.get("name") == CHECKPOINT_LOADER["name"]
        for handler in handlers
    ):
        # Evaluating at one site needs a handler that reads weights.
        document["handlers"] = [CHECKPOINT_LOADER, *handlers]
    return document


def _values(train: Document, names: Iterable[str], document: Document) -> dict[str, Any]:
    """Return the variables of these names that only ``config_train.json`` sets."""
    given = first_level_primitives(train)
    values = {name: given[name] for name in names if name in given}
    differing = [name for name in values if document.get(name, values[name]) != values[name]]
    if differing:
        raise ConfigError(
            Problem(
                Location("config_validation.json") / name,
                f"is {document[name]!r}, and {values[name]!r} in config_train.json; the network "
                "asks for it",
                "Write the variable into environment.json, or a config_cross_validation.json.",
                "variable",
            )
            for name in differing
        )
    return {name: value for name, value in values.items() if name not in document}


def _of_validate_section(train: Document) -> dict[str, Any]:
    """Return the section as a document of its own: with its variables, its ``ref``s written out."""
    draft = Draft(train)
    section = dict(train["validate"])
    if isinstance(section.get("handlers"), list):
        section["handlers"] = [
            handler
            for handler in section["handlers"]
            if not isinstance(handler, dict) or handler.get("name") not in OF_TRAINING
        ]
    for slot in TRANSFORM_LISTS:
        if isinstance(section.get(slot), list):
            section[slot] = [_written_out(draft, transform) for transform in section[slot]]
    wanted = {*_names(section), *SETTINGS, VERSION}
    return {**_values(train, sorted(wanted), {}), **section}


def _written_out(draft: Draft, item: Any) -> Any:
    if not isinstance(item, dict) or "ref" not in item:
        return item
    of_own_code = (
        transform
        for slot in TRANSFORM_LISTS
        for transform in objects(draft.document["train"], slot)
        if str(transform.get("path", "")).rpartition(".")[2] == item["ref"]
    )
    transform = draft.transform(item) or next(of_own_code, {})
    if not transform:
        return item  # for the loader to refuse at its place
    return {**transform, **{key: value for key, value in item.items() if key != "ref"}}


def _names(value: Any) -> list[str]:
    """Return the variables that a part of a document asks for."""
    return list(dict.fromkeys(names_in(json.dumps(value))))

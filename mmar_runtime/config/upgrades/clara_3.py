"""Documents of Clara Train 3.x, which ran on TensorFlow: recognised, and not translated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem

SECTIONS = ("train", "validate")
PIPELINES = ("image_pipeline", "image_pipelines")
TOP = ("num_training_epoch_per_valid", "train_summary_recording_interval", "dynamic_input_shape")
"""Entries that 4.0 no longer had."""


def require_4(document: Mapping[str, Any], file: str) -> None:
    """Refuse a document of Clara Train 3.x in one sentence, and not each of its words.

    Raises:
        ConfigError: the document is of that kind.
    """
    place = next(_signs(document, Location(file)), None)
    if place is not None:
        message = "is how Clara Train 3.x said it, which ran on TensorFlow"
        advice = (
            "Its networks and weights do not run on PyTorch, so nothing is translated. Write the "
            "document anew: docs/look-up/mmar.md names all parts."
        )
        raise ConfigError([Problem(place, message, advice, "clara-3")])


def _signs(document: Mapping[str, Any], location: Location) -> Iterator[Location]:
    yield from (location / name for name in TOP if name in document)
    sections = {name: document.get(name) for name in SECTIONS}
    for name, section in {"": document, **sections}.items():
        if not isinstance(section, Mapping):
            continue
        place = location / name if name else location
        yield from (place / key for key in PIPELINES if key in section)
        transforms = section.get("pre_transforms")
        for index, item in enumerate(transforms if isinstance(transforms, list) else ()):
            args = item.get("args") if isinstance(item, Mapping) and "path" not in item else None
            if isinstance(args, Mapping) and "fields" in args:  # 'keys' since 4.0
                yield place / "pre_transforms" / index / "args" / "fields"

"""Labels of a classification that the data list has as words."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms import MapLabelValued

from mmar_runtime.errors import ComponentError


class MapWords(MapLabelValued):
    """``MapLabelValued`` as MONAI has it, and for an entry that is a word as well.

    MONAI's own fails on a word, as it asks for its shape.
    """

    def __init__(
        self, keys: Any, orig_labels: Sequence[Any], target_labels: Sequence[Any], **arguments: Any
    ) -> None:
        super().__init__(keys, orig_labels, target_labels, **arguments)
        self._numbers = dict(zip(orig_labels, target_labels, strict=True))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with the new labels.

        Raises:
            ComponentError: a word is not among the labels to map.
        """
        entries = dict(data)
        for key in self.key_iterator(entries):
            value = entries[key]
            entries[key] = (
                self._number(value, key) if isinstance(value, str) else self.mapper(value)
            )
        return entries

    def _number(self, word: str, key: Hashable) -> Any:
        if word in self._numbers:
            return self._numbers[word]
        known = ", ".join(map(repr, self._numbers))
        raise ComponentError(f"{key!r} is a word that orig_labels does not name; named are {known}")

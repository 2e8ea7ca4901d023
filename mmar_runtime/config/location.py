"""A place in a JSON document, as a value: ``config_train.json: train.handlers[3].args``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Location:
    """The document's name and the keys and indices that lead to the place.

    >>> Location("config_train.json") / "train" / "handlers" / 3 / "args"
    Location('config_train.json: train.handlers[3].args')
    """

    file: str
    path: tuple[str | int, ...] = ()

    def __truediv__(self, step: str | int) -> Location:
        return Location(self.file, (*self.path, step))

    @property
    def place(self) -> str:
        """The place without the document: ``train.handlers[3].args``; empty for the whole.

        A key that is not a plain name is quoted, so that no key can look like another place.

        >>> (Location("config_train.json") / "train" / "a.b").place
        "train['a.b']"
        """
        text = ""
        for step in self.path:
            if isinstance(step, str) and step.isidentifier():
                text += f".{step}" if text else step
            else:
                text += f"[{step!r}]"
        return text

    def __str__(self) -> str:
        return f"{self.file}: {self.place}" if self.path else self.file

    def __repr__(self) -> str:
        return f"Location({str(self)!r})"

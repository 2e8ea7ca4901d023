"""The grid of each entry of a case: what the transforms of a section do to its voxels' places.

A transform gives the entries in its ``keys`` another grid and leaves all others alone. So image and
label, or prediction and label, lie on one grid exactly if they went through equal steps. Code of
the MMAR's own may do anything, so the grid of what it touches is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Any, TypeAlias

from mmar_runtime.config.nodes import ComponentSpec, ListNode, Node, Reference, plain
from mmar_runtime.config.sections import Section

INTERPOLATING: Mapping[str, str] = MappingProxyType(
    {
        "Affined": "bilinear",
        "GridDistortiond": "bilinear",
        "Rand2DElasticd": "bilinear",
        "Rand3DElasticd": "bilinear",
        "RandAffined": "bilinear",
        "RandGridDistortiond": "bilinear",
        "RandRotated": "bilinear",
        "RandZoomd": "area",
        "ResampleToMatchd": "bilinear",
        "Resized": "area",
        "Rotated": "bilinear",
        "Spacingd": "bilinear",
        "SpatialResampled": "bilinear",
        "Zoomd": "area",
    }
)
"""The transforms that compute voxels from their neighbours -> MONAI's own ``mode``."""

CUTTING = frozenset(
    {
        "CenterScaleCropd", "CenterSpatialCropd", "CropForegroundd", "RandCropByLabelClassesd",
        "RandCropByPosNegLabeld", "RandScaleCropd", "RandSpatialCropSamplesd", "RandSpatialCropd",
        "RandWeightedCropd", "ResizeWithPadOrCropd", "SpatialCropd",
    }
)  # fmt: skip
MOVING = frozenset(
    {
        "BorderPadd", "DivisiblePadd", "Flipd", "Orientationd", "RandAxisFlipd", "RandFlipd",
        "RandRotate90d", "Rotate90d", "SpatialPadd", "Transposed",
    }
)  # fmt: skip
"""The transforms that cut voxels off, and those that add some or turn them round."""

UNKNOWN = frozenset({"BoundingRectd", "GridPatchd", "GridSplitd", "RandGridPatchd"})
"""The transforms whose grids are not followed."""

KEEPS_LABELS = frozenset({"nearest", "nearest-exact", 0})
"""Values of ``mode`` that make no new value."""

NOT_THE_GRID = frozenset(
    {
        "align_corners", "allow_missing_keys", "dtype", "end_coord_key", "keys", "lazy",
        "meta_key_postfix", "meta_keys", "mode", "padding_mode", "start_coord_key",
    }
)  # fmt: skip
"""Arguments that change no place of a voxel."""

SEVERAL = frozenset({"Compose", "OneOf", "RandomOrder", "SomeOf"})
"""The transforms that hold others."""

LOADER, COPIER, JOINER, INVERTER = "LoadImaged", "CopyItemsd", "ConcatItemsd", "Invertd"
SPLITTER, SAVER = "SplitDimd", "SaveImaged"


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a grid.

    Attributes:
        spec: the transform.
        signature: equal for two transforms that change a grid in the same way.
    """

    spec: ComponentSpec
    signature: str

    @property
    def title(self) -> str:
        """The name of the transform."""
        return title_of(self.spec)


Grid: TypeAlias = tuple[Step, ...] | None
"""The steps since the file was read; None if nobody can know them."""


def title_of(spec: ComponentSpec) -> str:
    """Return the name of a transform in MONAI's first spelling; empty for code of the MMAR's own.

    ``SpacingD`` and ``SpacingDict`` are ``Spacingd``.
    """
    if spec.path is not None and not spec.path.startswith("monai."):
        return ""
    title = spec.title
    for ending in ("Dict", "D"):
        if title.endswith(ending):
            return f"{title.removesuffix(ending)}d"
    return title


def texts_of(spec: ComponentSpec, argument: str) -> tuple[str, ...]:
    """Return the texts of an argument, a single one too; none if they are not written out."""
    node = spec.args.items.get(argument)
    value: Any = None if node is None else plain(node)
    values = value if isinstance(value, list) else [value]
    return tuple(text for text in values if isinstance(text, str))


def argument_of(spec: ComponentSpec, key: str, argument: str, default: Any = None) -> Any:
    """Return the value of an argument for one of the ``keys``: lists have one for each key."""
    node = spec.args.items.get(argument)
    value = default if node is None else plain(node)
    keys = texts_of(spec, "keys")
    if isinstance(value, list) and len(value) == len(keys) and key in keys:
        return value[keys.index(key)]
    return value


def transforms_of(section: Section, slot: str) -> Iterator[ComponentSpec]:
    """Yield the transforms of an entry in their order, those inside a ``Compose`` in its place."""
    yield from _flat(section.specs(slot))


def _flat(specs: Iterable[Node]) -> Iterator[ComponentSpec]:
    waiting = list(specs)[::-1]
    while waiting:
        spec = waiting.pop()
        if not isinstance(spec, ComponentSpec) or spec.disabled:
            continue
        inner = spec.args.items.get("transforms")
        if title_of(spec) in SEVERAL and isinstance(inner, ListNode):
            waiting += inner.items[::-1]
        else:
            yield spec


def loaded_keys(section: Section) -> frozenset[str]:
    """Return the entries that are read from files."""
    loaders = (spec for spec in transforms_of(section, "pre_transforms"))
    return frozenset(
        key for spec in loaders if title_of(spec) == LOADER for key in texts_of(spec, "keys")
    )


class Grids:
    """The grids of a section's entries, transform by transform.

    Before the first step each entry has the grid of its file; ``pred`` has the image's, as the
    engine gives the network the image.
    """

    def __init__(self) -> None:
        self._grids: dict[str, Grid] = {}

    @classmethod
    def before_network(cls, section: Section) -> Grids:
        """Return the grids that network and loss get."""
        grids = cls()
        for spec in transforms_of(section, "pre_transforms"):
            grids.follow(spec)
        return grids

    @classmethod
    def at_metrics(cls, section: Section, until: ComponentSpec | None = None) -> Grids:
        """Return the grids that metrics get; or those before one of the post transforms."""
        grids = cls.before_network(section)
        grids._grids["pred"] = grids.of("image")
        for spec in transforms_of(section, "post_transforms"):
            if spec is until:
                break
            grids.follow(spec)
        return grids

    def of(self, key: str) -> Grid:
        """Return the grid of an entry."""
        return self._grids.get(key, ())

    def follow(self, spec: ComponentSpec) -> None:
        """Let a transform change the grids."""
        title, keys = title_of(spec), texts_of(spec, "keys")
        if not title:
            self._forget(spec)
        elif title == COPIER:
            for key, name in zip(keys, texts_of(spec, "names"), strict=False):
                self._grids[name] = self.of(key)
        elif title == SPLITTER:
            for key, end in product(keys, texts_of(spec, "output_postfixes")):
                self._grids[f"{key}_{end}"] = self.of(key)
        elif title == JOINER and keys:
            self._grids.update(dict.fromkeys(texts_of(spec, "name"), self.of(keys[0])))
        elif title == INVERTER:
            self._invert(spec, keys)
        elif title == "ResampleToMatchd" and texts_of(spec, "key_dst"):
            self._grids.update(dict.fromkeys(keys, self.of(texts_of(spec, "key_dst")[0])))
        elif title in UNKNOWN or title == "SpatialResampled":
            self._grids.update(dict.fromkeys(keys))
        elif title in INTERPOLATING or title in CUTTING or title in MOVING:
            step = Step(spec, _signature(spec, title))
            for key in keys:
                before = self.of(key)
                self._grids[key] = None if before is None else (*before, step)

    def _invert(self, spec: ComponentSpec, keys: tuple[str, ...]) -> None:
        whole = spec.args.items.get("transform")
        undoes_all = isinstance(whole, Reference) and whole.name == "pre_transforms"
        self._grids.update(dict.fromkeys(keys, () if undoes_all else None))

    def _forget(self, spec: ComponentSpec) -> None:
        named = {text for name in spec.args.items for text in texts_of(spec, name)}
        self._grids.update(dict.fromkeys(named))


def differ(one: Grid, other: Grid) -> bool:
    """Return whether two entries lie on different grids; never where one is unknown."""
    if one is None or other is None:
        return False
    return sorted(step.signature for step in one) != sorted(step.signature for step in other)


def odd_steps(one: Grid, other: Grid) -> tuple[Step, ...]:
    """Return the steps of one entry that the other has not gone through."""
    known = {step.signature for step in other or ()}
    return tuple(step for step in one or () if step.signature not in known)


def _signature(spec: ComponentSpec, title: str) -> str:
    args = {name: plain(node) for name, node in spec.args.items.items() if name not in NOT_THE_GRID}
    # Two random transforms draw numbers of their own, whatever they have in common.
    own = str(spec.location) if title.startswith("Rand") else ""
    return canonical([title, own, args])


def canonical(value: Any) -> str:
    """Return a text that is equal for equal JSON values: 1 and 1.0 are one number.

    >>> canonical({"b": [1.0, True], "a": 0.5})
    '{"a": 0.5, "b": [1, true]}'
    """
    return json.dumps(_whole(value), sort_keys=True, default=str)


def _whole(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value

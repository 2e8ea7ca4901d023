"""Every path that a configuration names: does it stay where a job may read or write?

A path is judged by where it leads, links followed, and by who wrote it. What a site, or who runs an
MMAR of their own, has set as a variable may lead anywhere; what a job wrote stays in its MMAR.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmar_runtime.config.data_list import FILE_KEYS, labels_are_files, raw_items
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import (
    DataListSource,
    ListNode,
    Literal,
    MapNode,
    Node,
    WeightsFile,
    walk,
)
from mmar_runtime.config.overrides import COMMAND_LINE
from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.config.sources import SITE
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.policy.component_check import all_components, table_entry
from mmar_runtime.policy.component_table import PathRole, load_component_table
from mmar_runtime.policy.site_policy import SitePolicy

MODEL_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".ts", ".tar", ".bin")
"""How the name of a file of weights may end."""

DATA_VARIABLES = ("DATA_ROOT", "DATASET_JSON")
NOT_WRITTEN = ("config", "custom", "commands", "resources", "docs")
"""Folders of an MMAR that a run leaves as they are."""

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
SERVICE = re.compile(r"(?!file:|sqlite:)[a-z][a-z0-9+.\-]*://[^/]")
"""The address of a service on another machine."""

LOOKED_UP = re.compile(r"[/~]|.*://|(.*/)?\.\.(/|$)", re.DOTALL)
"""Texts in an item of a data list that some transform could take for a file's name."""

NAME = re.compile(r"[A-Za-z0-9_.\-]{0,100}")
MAX_PATH = 1024
MAX_SHOWN = 80


def path_check(
    policy: SitePolicy, *, owner: bool = False
) -> Callable[[WorkflowConfig], Iterator[Problem]]:
    """The check to hand to the loader.

    Args:
        policy: where data may lie.
        owner: whether the MMAR's own documents speak for the site, as for who runs an MMAR of
            their own: then a variable of theirs may lead anywhere, as one of ``--set`` does.
    """

    def check(config: WorkflowConfig) -> Iterator[Problem]:
        yield from _PathCheck(config, policy, owner).problems()

    return check


def resolve_inside(root: Path, path: str) -> Path | None:
    """Where a path leads from a folder, links followed; None if that is outside of the folder.

    >>> resolve_inside(Path("/"), "etc/..").as_posix()
    '/'
    >>> resolve_inside(Path("/usr"), "../etc") is None
    True
    """
    top = os.path.realpath(root)
    place = os.path.realpath(os.path.join(top, path))
    return Path(place) if os.path.commonpath([top, place]) == top else None


def text_fault(text: str) -> str:
    """Why a text is no plain path of this machine; empty if it is."""
    if not text.isprintable():
        return "has signs that cannot be printed"
    if len(text) > MAX_PATH:
        return f"is longer than {MAX_PATH} characters"
    if SCHEME.match(text):
        return "is a URL, or a drive of another system"
    if text.startswith("~") or "$" in text or "\\" in text:
        return "has a sign by which a shell or another system means another place"
    return ""


@dataclass(frozen=True)
class _PathCheck:
    """One configuration on its way."""

    config: WorkflowConfig
    policy: SitePolicy
    owner: bool

    def problems(self) -> Iterator[Problem]:
        yield from self._root_faults()
        for spec, kind in all_components(self.config):
            entry = table_entry(spec, kind, load_component_table())
            for name, role in () if entry is None else entry.paths.items():
                if name in spec.args.items:
                    node = spec.args.items[name]
                    place = spec.args.location / name
                    yield from self._argument(node, role, f"{spec.title}: {name}", place)
            if spec.log_label is not None and LOOKED_UP.match(spec.log_label):
                message = f"log_label: {spec.log_label!r} is a path; MetricsSaver names files by it"
                yield Problem(spec.location / "log_label", message, _ADVICE["name"], "path")
            if spec.data_list is not None:
                yield from self._data_list(spec.data_list)
            elif entry is not None and entry.kind == "dataset" and not self.owner:
                yield from self._written_cases(spec.args.items.get("data"))
        for section in self.config.scopes.values():
            for node in section.entries.values():
                for inner in walk(node):
                    if isinstance(inner, WeightsFile):
                        place = inner.location / inner.kind
                        yield from self._text(inner.path, "read:model", inner.kind, place)

    @cached_property
    def root(self) -> str:
        """The MMAR's folder, links followed."""
        return os.path.realpath(self.config.mmar_root)

    @cached_property
    def trusted(self) -> dict[str, str]:
        """Variables that lead where whoever owns this place has said -> where that is."""
        return {
            name: os.path.realpath(one.value)
            for name, one in self.config.variables.items()
            if isinstance(one.value, str)
            and os.path.isabs(one.value)
            and not text_fault(one.value)
            and (self.owner or one.source in (Location(SITE), COMMAND_LINE))
        }

    @cached_property
    def started_in(self) -> tuple[str, ...]:
        """The folder that an owner's relative paths are below; a job has none."""
        return (os.path.realpath("."),) if self.owner else ()

    @cached_property
    def readable(self) -> tuple[str, ...]:
        """Where data may be read."""
        return (*self.data_roots, self.root, *self.started_in)

    @cached_property
    def data_roots(self) -> tuple[str, ...]:
        """Where data may lie: as the policy says, else where the site's own variables lead."""
        if self.policy.data_roots:
            return tuple(os.path.realpath(one) for one in self.policy.data_roots)
        found = [self.trusted[name] for name in DATA_VARIABLES if name in self.trusted]
        return tuple(os.path.dirname(one) if one.endswith(".json") else one for one in found)

    def _root_faults(self) -> Iterator[Problem]:
        """A site's own variables against its own policy."""
        for name in DATA_VARIABLES if self.policy.data_roots else ():
            if name in self.trusted and not _is_in(self.trusted[name], self.data_roots):
                variable = self.config.variables[name]
                message = f"{name} is outside of the policy's data_roots"
                yield Problem(variable.source / name, message, "", "path")

    @cached_property
    def output_bases(self) -> tuple[str, ...]:
        """Folders relative to which results are named after their images, as they are written."""
        found = []
        for spec, kind in all_components(self.config):
            entry = table_entry(spec, kind, load_component_table())
            for name, role in () if entry is None else entry.paths.items():
                node = spec.args.items.get(name) if role == "read:base" else None
                if isinstance(node, Literal) and isinstance(node.value, str) and node.value:
                    found.append(os.path.abspath(node.value))
        return tuple(found)

    def _argument(
        self, node: Node, role: PathRole, what: str, place: Location
    ) -> Iterator[Problem]:
        if role == "name" and isinstance(node, MapNode):
            for key in node.items:
                yield from self._text(key, role, what, place)
        elif role == "read:run" and isinstance(node, ListNode):
            for item in node.items:
                yield from self._argument(item, role, what, place)
        elif not isinstance(node, Literal) or not isinstance(node.value, str | None):
            message = f"{what} has to be a text"
            yield Problem(place, message, "Write the path itself, or a {VARIABLE}.", "path")
        elif node.value is None and role == "read:model":
            yield Problem(place, f"{what} names no file", "", "path")
        elif node.value:
            yield from self._text(node.value, role, what, place)

    def _text(self, text: str, role: PathRole, what: str, place: Location) -> Iterator[Problem]:
        if role == "write:service" and SERVICE.match(text):
            return  # the component asks for the consent to send
        text = text.removeprefix("file://") if role == "write:service" else text
        text = text.removeprefix("sqlite:///") if role == "write:service" else text
        fault = text_fault(text) or self._fault(text, role)
        if fault:
            shown = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
            advice = _ADVICE[role]
            yield Problem(place, f"{what}: {shown!r} {fault}", advice, "path")

    def _fault(self, text: str, role: PathRole) -> str:
        if role == "name":
            plain = NAME.fullmatch(text) and text not in (".", "..")
            return "" if plain else "is no plain name of a file"
        if not self.owner and not os.path.isabs(text):
            return _RELATIVE
        place = os.path.realpath(text)
        if role in ("write:run", "write:service"):
            return self._write_fault(place)
        if role == "read:model":
            return self._model_fault(place, text)
        if role == "read:run":
            mine = [self.root, *self.started_in, *(self.trusted.values() if self.owner else ())]
            return "" if _is_in(place, mine) else "leads out of the MMAR"
        return "" if _is_in(place, self.readable) else "leads out of the site's data"

    def _write_fault(self, place: str) -> str:
        kept = [os.path.join(self.root, name) for name in NOT_WRITTEN]
        if _is_in(place, kept) or place == self.root:
            return "is not a place for results"
        own = [self.root, *(w for name, w in self.trusted.items() if name not in DATA_VARIABLES)]
        own += self.started_in
        if not _is_in(place, own) or (
            _is_in(place, self.data_roots) and not _is_in(place, own[:1])
        ):
            return "leads out of the run's own folder"
        return "leads to something that is no folder" if _is_odd(place) else ""

    def _model_fault(self, place: str, text: str) -> str:
        if not text.endswith(MODEL_SUFFIXES):
            return f"does not end as a file of weights does: {', '.join(MODEL_SUFFIXES)}"
        if _is_in(place, [os.path.join(self.root, "custom")]):
            return "lies among code"
        if not _is_in(place, [self.root, *self.started_in, *self.trusted.values()]):
            return "leads out of the MMAR"
        return "is no plain file" if os.path.exists(place) and not os.path.isfile(place) else ""

    def _data_list(self, source: DataListSource) -> Iterator[Problem]:
        file, base = source.location / "data_list_file_path", source.location / "data_file_base_dir"
        wrong = [
            *self._text(source.file, "read:data", "data_list_file_path", file),
            *self._base(source.base, base),
        ]
        yield from wrong
        if not wrong and (not self.owner or _is_in(os.path.realpath(source.file), [self.root])):
            yield from self._entries(source)

    def _written_cases(self, data: Node | None) -> Iterator[Problem]:
        """Cases that stand in the workflow itself; any text of theirs may be a file."""
        for inner in () if data is None else walk(data):
            if isinstance(inner, Literal) and isinstance(inner.value, str):
                yield from self._text(inner.value, "read:data", "data", inner.location)

    def _base(self, text: str, place: Location) -> Iterator[Problem]:
        """The folder of the images, which is the site's and not the job's."""
        fault = text_fault(text)
        if not fault:
            fault = self._fault(text, "read:data")
        if not fault and not all(_is_in(os.path.abspath(text), [one]) for one in self.output_bases):
            fault = "is not below data_root_dir, so results would be named by a way out"
        if fault:
            message = f"data_file_base_dir: {text[:MAX_SHOWN]!r} {fault}"
            yield Problem(place, message, _ADVICE["read:data"], "path")

    def _entries(self, source: DataListSource) -> Iterator[Problem]:
        """The files that a list names; what is wrong with the list itself, other checks tell."""
        if not os.path.isfile(source.file):
            return
        try:
            items = raw_items(Path(source.file), source)
        except ConfigError:
            return
        location = Location(Path(source.file).name) / source.key
        keys = [key for key in FILE_KEYS if key != "label" or labels_are_files(self.config)]
        for index, item in enumerate(items):
            for key, text in _files_of(item, keys):
                fault = text_fault(text) or self._entry_fault(source.base, text)
                if fault:
                    # The name may be a patient's, and this text may reach a log.
                    yield Problem(location / index / key, fault, _ADVICE["read:data"], "path")

    def _entry_fault(self, base: str, text: str) -> str:
        written = os.path.abspath(os.path.join(base, text))
        place = os.path.realpath(written)
        if not _is_in(place, self.readable):
            return "leads out of the site's data"
        if not all(_is_in(written, [one]) for one in self.output_bases):
            return "lies out of data_root_dir, below which results are named after their images"
        return "is no plain file" if _is_odd(place) else ""


_RELATIVE = "is relative, and would mean a place where the site's process was started"
_ADVICE: dict[PathRole, str] = {
    "read:data": "Data lie below DATA_ROOT, or the data_roots of the site's policy.",
    "read:base": "Write {DATA_ROOT}.",
    "read:run": "Name files of the MMAR, as {MMAR_CKPT_DIR}.",
    "read:model": "Weights lie in the MMAR, as {MMAR_CKPT}; --set MMAR_CKPT=FILE names another.",
    "write:run": "Results go below the MMAR, as to {MMAR_CKPT_DIR}; a site may set that elsewhere.",
    "write:service": "Write the address of a service, or a place below {MMAR_CKPT_DIR}.",
    "name": "Write a name of letters, digits, '.', '_' and '-'; folders stand elsewhere.",
}


def _files_of(item: Any, keys: list[str]) -> Iterator[tuple[str, str]]:
    found = {"image": item} if isinstance(item, str) else item
    if not isinstance(found, dict):
        return
    for key, value in found.items():
        for text in _texts(value):
            if key in keys or LOOKED_UP.match(text):
                yield key, text


def _texts(value: Any) -> Iterator[str]:
    """Every text in an entry of an item, however deep; any of them may be handed to a reader."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict | list):
            waiting += one.values() if isinstance(one, dict) else one


def _is_in(place: str, roots: Any) -> bool:
    """Whether a resolved path is one of the resolved folders, or lies below one."""
    return any(os.path.commonpath([root, place]) == root for root in roots)


def _is_odd(place: str) -> bool:
    """Whether something is there that is neither a file nor a folder: a device, a pipe."""
    return os.path.exists(place) and not (os.path.isfile(place) or os.path.isdir(place))

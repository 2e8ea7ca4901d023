"""Every path that a configuration names: does it stay where a job may read or write?

This module finds the texts and their writers; ``paths`` judges each. A variable of a site, or of
the owner of an MMAR, may lead anywhere; a variable of a job stays in its MMAR.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mmar_runtime.config.data_list import raw_items
from mmar_runtime.config.file_keys import file_keys, file_keys_check, loaders
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import (
    ComponentSpec,
    DataListSource,
    Expression,
    ListNode,
    Literal,
    MapNode,
    Node,
    WeightsFile,
    plain,
    walk,
)
from mmar_runtime.config.overrides import COMMAND_LINE
from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.config.sources import OUTPUT_VARIABLES, SITE, Variable
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.names import quoted
from mmar_runtime.policy.component_check import all_components
from mmar_runtime.policy.component_table import ComponentEntry
from mmar_runtime.policy.files.paths import Places, Role, is_below, text_fault
from mmar_runtime.policy.possible_values import possible_values
from mmar_runtime.policy.run_folders import run_folders
from mmar_runtime.policy.site_policy import OWN_MMAR_POLICY, SitePolicy

DATA_VARIABLES = ("DATA_ROOT", "DATASET_JSON")

LOOKED_UP = re.compile(r"/|~[\w.\-]*(/|$)|file:|(.*/)?\.\.(/|$)", re.DOTALL)
"""Texts that a component could take for a file's name, in any entry."""

READERS_OWN = frozenset({"filename_or_obj", "patch_index"})
"""Keys of an image's metadata by which results are named; a reader fills them in."""


def path_check(
    policy: SitePolicy, *, owner: bool = False, cases: bool = True
) -> Callable[[WorkflowConfig], Iterator[Problem]]:
    """Return the check to hand to the loader.

    Args:
        policy: where data may lie.
        owner: whether the MMAR's own documents speak for the site, as for the owner of an MMAR:
            then their variables may lead anywhere, as those of ``--set``.
        cases: whether the lists of cases are read, and all that they name is judged.
    """

    def check(config: WorkflowConfig) -> Iterator[Problem]:
        yield from _PathCheck(config, policy, owner, cases).problems()

    return check


def results_elsewhere(config: WorkflowConfig) -> Iterator[str]:
    """Yield a note for each folder outside of the MMAR that its owner has results written to."""
    check = _PathCheck(config, OWN_MMAR_POLICY, owner=True, cases=False)
    started_in = check.places.started_in if config.mmar_root == Path.cwd() else ()
    inside = replace(check.places, anywhere=False, started_in=started_in)
    for spec, entry in all_components(config):
        for name, role in {} if entry is None else entry.paths.items():
            node = spec.args.items.get(name) if role == "write:run" else None
            for text in sorted(possible_values(node).texts or ()) if node is not None else ():
                if text and inside.fault(text, role) and not check.places.fault(text, role):
                    place = spec.args.location / name
                    yield f"{place}: results go to {os.path.abspath(text)!r}, outside of the MMAR"


@dataclass(frozen=True)
class _PathCheck:
    """The check of a configuration."""

    config: WorkflowConfig
    policy: SitePolicy
    owner: bool
    cases: bool

    def problems(self) -> Iterator[Problem]:
        yield from self._root_faults()
        yield from () if self.owner else self._variable_faults()
        yield from () if self.owner else file_keys_check(self.config)
        for spec, entry in all_components(self.config):
            if entry is not None:
                yield from self._arguments(spec, entry)
                yield from self._filled_in(spec, entry)
            if spec.data_list is not None:
                yield from self._data_list(spec.data_list)
            elif entry is not None and entry.kind == "dataset" and not self.owner:
                yield from self._written_cases(spec.args.items.get("data"))
        for node in self.config.nodes():
            if isinstance(node, WeightsFile):
                yield from self._text(node.path, "read:model", node.kind, node.named_at)

    # --- Where things may be ---------------------------------------------------------------------

    @cached_property
    def trusted(self) -> dict[str, str]:
        """Variables of the owner of this place -> the places where they lead."""
        return {
            name: os.path.realpath(variable.value)
            for name, variable in self.config.variables.items()
            if isinstance(variable.value, str)
            and os.path.isabs(variable.value)
            and not text_fault(variable.value)
            and (self.owner or _is_sites(variable))
        }

    @cached_property
    def places(self) -> Places:
        """Where this configuration may read and write."""
        roots = [*map(str, self.policy.data_roots)] or [self.trusted.get("DATA_ROOT", "")]
        return Places(
            root=os.path.realpath(self.config.mmar_root),
            data=tuple(os.path.realpath(root) for root in roots if root),
            data_list=self.trusted.get("DATASET_JSON", ""),
            trusted=tuple(
                place for name, place in self.trusted.items() if name not in DATA_VARIABLES
            ),
            started_in=(os.path.realpath("."),) if self.owner else (),
            anywhere=self.owner,
            named_from=tuple(map(os.path.abspath, self._bases())),
            reader_named=any(
                plain(loader.args.items["reader"]) is not None
                for loader in loaders(self.config)
                if "reader" in loader.args.items
            ),
        )

    def _bases(self) -> Iterator[str]:
        """Yield the folders, as written, relative to which results are named after their images."""
        for spec, entry in all_components(self.config):
            for name, role in () if entry is None else entry.paths.items():
                if role == "read:base" and name in spec.args.items:
                    yield from filter(None, possible_values(spec.args.items[name]).texts or ())

    def _root_faults(self) -> Iterator[Problem]:
        """Yield a site's own variables that its own policy does not allow."""
        for name in DATA_VARIABLES if self.policy.data_roots else ():
            if name in self.trusted and not is_below(self.trusted[name], self.places.data):
                variable = self.config.variables[name]
                message = f"{name} is outside of the policy's data_roots"
                yield Problem(variable.source / name, message, "", "path")

    def _variable_faults(self) -> Iterator[Problem]:
        """Yield ``MMAR_*`` of a job that lead out of the MMAR; a run writes to some."""
        for name, variable in self.config.variables.items():
            if not name.startswith("MMAR_") or _is_sites(variable):
                continue
            role: Role
            if name in OUTPUT_VARIABLES:
                role, text = "write:run", str(variable.value or "")
            elif isinstance(variable.value, str):
                role, text = "read:run", os.path.join(self.places.root, variable.value)
            else:
                continue
            fault = self.places.fault(text, role)
            if fault:
                yield Problem(variable.source / name, f"{name} {fault}", _ADVICE[role], "path")

    # --- Texts of the configuration --------------------------------------------------------------

    def _arguments(self, spec: ComponentSpec, entry: ComponentEntry) -> Iterator[Problem]:
        for name, role in entry.paths.items():
            node, flag = spec.args.items.get(name), entry.arguments[name].flag
            is_flag = isinstance(node, Literal) and isinstance(node.value, bool)
            if node is not None and not (flag and is_flag):
                place = spec.args.location / name
                yield from self._argument(node, role, f"{spec.title}: {name}", place)

    def _argument(self, node: Node, role: Role, what: str, place: Location) -> Iterator[Problem]:
        if role == "name" and isinstance(node, MapNode):
            for key in node.items:
                yield from self._text(key, role, what, place)
        elif role == "read:run" and isinstance(node, ListNode):
            for item in node.items:
                yield from self._argument(item, role, what, place)
        else:
            yield from self._texts(node, role, what, place)

    def _texts(self, node: Node, role: Role, what: str, place: Location) -> Iterator[Problem]:
        """Yield a fault unless a path is a text, or an expression whose texts are all known."""
        possible = possible_values(node)
        kinds = Literal if role == "read:model" else Literal | Expression  # the server reads it too
        single = isinstance(node, kinds)
        if not single or possible.texts is None or possible.has_numbers or possible.others:
            message = f"{what} has to be a text"
            yield Problem(place, message, "Write the path itself, or a {VARIABLE}.", "path")
        elif not possible.texts and role == "read:model":
            yield Problem(place, f"{what} names no file", "", "path")
        for text in sorted(possible.texts or ()) if single else ():
            if text:
                yield from self._text(text, role, what, place)

    def _text(self, text: str, role: Role, what: str, place: Location) -> Iterator[Problem]:
        fault = self.places.fault(text, role)
        if fault:
            yield Problem(place, f"{what}: {quoted(text)} {fault}", _ADVICE[role], "path")

    def _filled_in(self, spec: ComponentSpec, entry: ComponentEntry) -> Iterator[Problem]:
        """Yield the faults of run folders that a component gets if it names none."""
        for name, folder in run_folders(spec, entry, self.config.variables).items():
            place, what = spec.args.location / name, f"{spec.title}: {name}"
            if isinstance(folder, str):
                yield from self._text(folder, entry.paths[name], what, place)
            else:
                message = f"{what} is left out, and so is the run's folder"
                yield Problem(place, message, f"Give {entry.filled[name]} a folder.", "path")

    # --- Cases -----------------------------------------------------------------------------------

    def _data_list(self, source: DataListSource) -> Iterator[Problem]:
        file, base = source.location / "data_list_file_path", source.location / "data_file_base_dir"
        wrong = [
            *self._text(source.file, "read:list", "data_list_file_path", file),
            *self._base(source.base, base),
        ]
        yield from wrong
        own = is_below(self.places.follow(source.file), [self.places.root])
        if self.cases and not wrong and (not self.owner or own):
            yield from self._listed_cases(source)

    def _base(self, text: str, place: Location) -> Iterator[Problem]:
        """Yield a fault unless the folder of the images is the site's."""
        fault = self.places.fault(text, "read:data")
        named_from = self.places.named_from
        if not fault and not all(
            is_below(os.path.abspath(text), [folder]) for folder in named_from
        ):
            fault = "is not below data_root_dir, so results would be named by a way out"
        if fault:
            message = f"data_file_base_dir: {quoted(text)} {fault}"
            yield Problem(place, message, _ADVICE["read:data"], "path")

    def _listed_cases(self, source: DataListSource) -> Iterator[Problem]:
        """Yield the faults of files that a list names; other checks report a list's own faults."""
        if not os.path.isfile(source.file):
            return
        try:
            items = raw_items(Path(source.file), source)
        except ConfigError:
            return
        location = Location(Path(source.file).name) / source.key
        for index, item in enumerate(items):
            yield from self._case(item, source.base, location / index)

    def _written_cases(self, data: Node | None) -> Iterator[Problem]:
        """Yield the faults of cases in the workflow itself, which belong to no base folder."""
        for inner in () if data is None else walk(data):
            if not isinstance(inner, Literal | ListNode | MapNode):
                message = "data: a case is written in a list, and not computed"
                yield Problem(inner.location, message, _ADVICE["read:list"], "path")
                return
        cases = data.items if isinstance(data, ListNode) else () if data is None else (data,)
        for case in cases:
            yield from self._case(plain(case), "", case.location)

    @cached_property
    def file_keys(self) -> frozenset[str]:
        """The entries of a case that name files."""
        return file_keys(self.config)

    def _case(self, item: Any, base: str, place: Location) -> Iterator[Problem]:
        """Yield the faults of a case without its texts, which may name a patient."""
        entries = {"image": item} if isinstance(item, str) else item
        for key, value in entries.items() if isinstance(entries, dict) else ():
            fault = self._case_fault(key, value, base)
            if fault:
                yield Problem(place / key, fault, _ADVICE["read:image"], "path")

    def _case_fault(self, key: str, value: Any, base: str) -> str:
        if key in self.file_keys:
            if isinstance(value, dict):
                return "has to be a path, or a list of paths"
            return next(filter(None, (self._image(text, base) for text in _texts(value))), "")
        for text in (key, *_texts(value)):
            if text in READERS_OWN:
                return "is for a reader of images and not for a list; results are named by it"
            if LOOKED_UP.match(text) and (fault := self._image(text, base)):
                return fault
        return ""

    def _image(self, text: str, base: str) -> str:
        return text_fault(text) or self.places.fault(os.path.join(base, text), "read:image")


def _is_sites(variable: Variable) -> bool:
    """Return whether a site, or who runs the command, has set a variable."""
    return variable.source in (Location(SITE), COMMAND_LINE)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in an entry of a case, however deep; a reader may get any of them."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            waiting += (*part, *part.values())
        elif isinstance(part, list):
            waiting += part


_ADVICE: dict[Role, str] = {
    "read:data": "Put data below DATA_ROOT, or the data_roots of the site's policy.",
    "read:list": "The site names its list of cases; write {DATASET_JSON}.",
    "read:image": "Put images below DATA_ROOT, or the policy's data_roots, best as NIfTI.",
    "read:base": "Write {DATA_ROOT}.",
    "read:run": "Name files of the MMAR, as {MMAR_CKPT_DIR}.",
    "read:model": "Put weights into the MMAR, as {MMAR_CKPT}; --set MMAR_CKPT=FILE names another.",
    "write:run": "Results go below the MMAR, as to {MMAR_CKPT_DIR}; a site may set that elsewhere.",
    "write:service": "Write the address of a service, or a place below {MMAR_CKPT_DIR}.",
    "name": "Write a name of letters, digits, '.', '_' and '-'; name folders elsewhere.",
}

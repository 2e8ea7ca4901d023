"""A whole workflow as frozen values: ``TrainConfig`` and ``EvaluationConfig``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import (
    ComponentSpec,
    ListNode,
    Node,
    WeightsFile,
    plain,
    referenced_names,
    walk,
)
from mmar_runtime.config.sources import Variable
from mmar_runtime.config.upgrades import Notice

SLOT_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "loss": "loss",
        "optimizer": "optimizer",
        "lr_scheduler": "lr_scheduler",
        "model": "network",
        "pre_transforms": "transform",
        "post_transforms": "transform",
        "dataset": "dataset",
        "dataloader": "dataloader",
        "inferer": "inferer",
        "handlers": "handler",
        "key_metric": "metric",
        "additional_metrics": "metric",
        "prepare_batch": "prepare_batch",
        "iteration": "iteration",
        "trainer": "trainer",
        "evaluator": "evaluator",
    }
)
"""Section entry -> its kind of component."""

THREADS_VARIABLE = "NUM_THREADS"
"""A site's own value: how many threads torch computes with. It changes the last bits of sums."""

TRANSFORM_SLOTS = ("pre_transforms", "post_transforms")
LIST_SLOTS = frozenset({*TRANSFORM_SLOTS, "handlers", "additional_metrics"})
TRAIN_ONLY = frozenset({"loss", "optimizer", "lr_scheduler", "trainer"})
EVALUATE_ONLY = frozenset({"evaluator"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """The settings of a whole run; ``None`` leaves PyTorch's own setting untouched.

    Attributes:
        random_seed: seed of every random source; None means not deterministic.
        input_size: shape of ``network_summary``'s input (batch, channel, spatial...), or None.
    """

    amp: bool = False
    multi_gpu: bool = False
    use_gpu: bool = True
    print_conf: bool = False
    random_seed: int | None = None
    cudnn_benchmark: bool | None = None
    tf32: bool | None = None
    input_size: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The named entries of ``train``, of ``validate``, or of an evaluation document.

    Attributes:
        entries: the enabled entries by name.
        disabled: the names of those that the document disables.
    """

    location: Location
    entries: Mapping[str, Node]
    disabled: frozenset[str] = frozenset()

    def specs(self, name: str) -> tuple[ComponentSpec, ...]:
        """Return the enabled components of an entry; none if the section has no such entry."""
        node = self.entries.get(name)
        nodes = node.items if isinstance(node, ListNode) else (node,)
        return tuple(
            item for item in nodes if isinstance(item, ComponentSpec) and not item.disabled
        )

    def replaced(self, **entries: Node) -> Section:
        """Return a copy of the section with other entries."""
        return replace(self, entries=MappingProxyType({**self.entries, **entries}))

    def without_handlers(self, *titles: str) -> Section:
        """Return a copy of the section without the handlers of these classes."""
        handlers = self.entries.get("handlers")
        if not isinstance(handlers, ListNode):
            return self
        kept = tuple(node for node in handlers.items if getattr(node, "title", "") not in titles)
        return self.replaced(handlers=replace(handlers, items=kept))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowConfig(ABC):
    """The common part of a training and an evaluation document.

    Attributes:
        mmar_root: the MMAR's folder; ``custom/`` and relative paths are below it.
        file: the document's name, for messages.
        own_names: the variables that the document itself defines.
        notices: of the loader's translations.
    """

    mmar_root: Path
    file: str
    settings: RuntimeSettings
    variables: Mapping[str, Variable]
    own_names: frozenset[str]
    notices: tuple[Notice, ...] = ()

    @property
    @abstractmethod
    def scopes(self) -> Mapping[str, Section]:
        """The sections by name, in the order in which a name is looked up beyond its own."""

    @abstractmethod
    def as_json(self) -> dict[str, Any]:
        """Return the configuration as it runs: variables filled in, old constructs translated."""

    def nodes(self) -> Iterator[Node]:
        """Yield every enabled node of all sections, parents first."""
        for section in self.scopes.values():
            for entry in section.entries.values():
                yield from walk(entry)

    def find(self, scope: str, name: str) -> tuple[str, str] | None:
        """Return the section and entry that ``@name`` means in the section ``scope``.

        The own section comes first; so ``@dataset`` is each section's own, and ``@model`` in
        ``validate`` is the train section's. None if there is no such entry, or if the first one
        of that name is disabled: another section's must not take its place unnoticed.
        """
        for section in (scope, *self.scopes):
            if name in self.scopes[section].disabled:
                return None
            if name in self.scopes[section].entries:
                return section, name
        return None

    def value(self, name: str) -> Any:
        """Return the value of a variable, or None."""
        variable = self.variables.get(name)
        return None if variable is None else variable.value

    def own_values(self) -> dict[str, Any]:
        """Return the variables of the document itself: a checkpoint holds no paths of a site."""
        own = (name for name in self.variables if name in self.own_names)
        return {name: self.variables[name].value for name in own}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(WorkflowConfig):
    """``config_train.json``: a training workflow and the validation it runs on the way."""

    train: Section
    validate: Section | None

    @property
    def scopes(self) -> Mapping[str, Section]:
        """``train`` and, where the document has it, ``validate``."""
        scopes = {"train": self.train}
        return scopes if self.validate is None else {**scopes, "validate": self.validate}

    def with_train(self, train: Section) -> TrainConfig:
        """Return a copy of the config with another train section."""
        return replace(self, train=train)

    @property
    def validates(self) -> bool:
        """Whether anything of ``train`` refers to an entry of ``validate``, such as its engine."""
        names = (name for node in self.train.entries.values() for name, _ in referenced_names(node))
        targets = (self.find("train", name) for name in names)
        return any(target is not None and target[0] == "validate" for target in targets)

    def as_json(self) -> dict[str, Any]:
        """Return the configuration as it runs: variables filled in, old constructs translated."""
        top = self.own_values()
        if self.settings.random_seed is not None:
            top["determinism"] = {"random_seed": self.settings.random_seed}
        return {**top, **{name: _plain_section(section) for name, section in self.scopes.items()}}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig(WorkflowConfig):
    """``config_validation.json`` and its kin: a model that runs over a list of data.

    Of the alternatives in ``model``, ``section.entries["model"]`` is the enabled one.
    """

    section: Section

    @property
    def model(self) -> ComponentSpec | WeightsFile:
        """The network to evaluate: a component, or a file that holds it."""
        node = self.section.entries["model"]
        if not isinstance(node, ComponentSpec | WeightsFile):
            raise TypeError(f"the loader lets no {type(node).__name__} through as a model")
        return node

    @property
    def scopes(self) -> Mapping[str, Section]:
        """The only section, with an empty name: its entries are at the top level."""
        return {"": self.section}

    def with_section(self, section: Section) -> EvaluationConfig:
        """Return a copy of the config with other entries."""
        return replace(self, section=section)

    def as_json(self) -> dict[str, Any]:
        """Return the configuration as it runs: variables filled in, old constructs translated."""
        return {**self.own_values(), **_plain_section(self.section)}


Config = TypeVar("Config", bound=WorkflowConfig)


def without_unused_validation(config: Config) -> Config:
    """Return a training config without a ``validate`` section that nothing of ``train`` uses.

    Only for a training by itself: a site of a federation validates the model that it receives.
    """
    if isinstance(config, TrainConfig) and not config.validates:
        return replace(config, validate=None)
    return config


def _plain_section(section: Section) -> dict[str, Any]:
    return {name: plain(node) for name, node in section.entries.items()}

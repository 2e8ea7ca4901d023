"""Writes ``mmar_runtime/policy/components.json``: the classes that a configuration may name.

Next to it ``config/upgrades/argument_changes.json``: the arguments that MONAI has renamed or
dropped, or whose defaults it changes, by the deprecation records of its classes.

The table is made from the installed MONAI, PyTorch and ignite, and committed, so that a
configuration can be checked without importing any of them, and so that a person reviews every
change that a new release brings. Run it after a change of the pinned versions:

    python scripts/generate_component_table.py            # write the file
    python scripts/generate_component_table.py --check    # exit 1 if the file is out of date

What is a matter of judgement stands at the top as data, each with its reason: which namespaces are
searched, which classes are left out, and where the ``**kwargs`` of a constructor end up. What each
argument may be stands in ``component_review``. The generator stops at an argument that is a text, a
function, a class or an object and that nobody has looked into, and at a class whose ``**kwargs``
nobody has looked into: such a constructor accepts any word, and the word may have no effect.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from component_review.arguments import BY_CLASS, BY_KIND, BY_NAME, NUMBERS, WORDS
from component_review.forms import FORMS
from component_review.past_arguments import (
    CLARA_4_0_DEFAULTS,
    CLARA_DEFAULTS,
    DROPPED,
    RENAMED,
)
from ignite.metrics import Metric
from monai.engines import PrepareBatch
from monai.inferers import Inferer
from monai.transforms import Compose, MapTransform

RUNTIME = Path(__file__).resolve().parents[1] / "mmar_runtime"
OUTPUT = RUNTIME / "policy" / "components.json"
CHANGES = RUNTIME / "config" / "upgrades" / "argument_changes.json"
PACKAGES = ("monai", "torch", "pytorch-ignite")


# --- Where components are looked for ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """One namespace that is searched for one kind of component.

    Attributes:
        kind: the kind that the classes found are good for.
        namespace: the public module; its attribute names are the names of a component.
        accepts: whether a class of the namespace belongs to the kind.
    """

    kind: str
    namespace: str
    accepts: Callable[[type], bool]


def subclass_of(*bases: type) -> Callable[[type], bool]:
    """A test that accepts the subclasses of any of ``bases``."""
    return lambda cls: issubclass(cls, bases)


def named(*names: str) -> Callable[[type], bool]:
    """A test that accepts the classes with one of these names."""
    return lambda cls: cls.__name__ in names


def is_torch_loss(cls: type) -> bool:
    """Whether a class of ``torch.nn`` is a loss; only its name tells them from the layers."""
    return issubclass(cls, torch.nn.Module) and cls.__name__.endswith("Loss")


def is_handler(cls: type) -> bool:
    """Whether a class is attached to an engine and is not a metric, which is attached as well."""
    return callable(getattr(cls, "attach", None)) and not issubclass(cls, Metric)


SCHEDULERS = (torch.optim.lr_scheduler.LRScheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)

# The order decides a clash of names within a kind: the first source has the name, and the other
# class can still be had by its full path. MONAI goes first, as in Clara Train, with one exception:
# its LinearLR and ExponentialLR belong to the learning rate finder, and a training configuration
# that says ExponentialLR means the schedule of PyTorch.
SOURCES = (
    Source("network", "monai.networks.nets", subclass_of(torch.nn.Module)),
    Source("loss", "monai.losses", subclass_of(torch.nn.Module)),
    Source("loss", "torch.nn", is_torch_loss),
    Source("optimizer", "monai.optimizers", subclass_of(torch.optim.Optimizer)),
    Source("optimizer", "torch.optim", subclass_of(torch.optim.Optimizer)),
    Source("lr_scheduler", "torch.optim.lr_scheduler", subclass_of(*SCHEDULERS)),
    Source("lr_scheduler", "monai.optimizers", subclass_of(*SCHEDULERS)),
    Source("transform", "monai.transforms", subclass_of(MapTransform, Compose)),
    Source(
        "dataset",
        "monai.data",
        named(
            *("Dataset", "CacheDataset", "SmartCacheDataset", "PersistentDataset"),
            *("CacheNTransDataset", "PatchDataset"),
        ),
    ),
    Source("dataloader", "monai.data", named("DataLoader", "ThreadDataLoader")),
    Source("inferer", "monai.inferers", subclass_of(Inferer)),
    Source("handler", "monai.handlers", is_handler),
    Source("metric", "monai.handlers", subclass_of(Metric)),
    Source("metric", "ignite.metrics", subclass_of(Metric)),
    Source(
        "trainer",
        "monai.engines",
        named("Trainer", "SupervisedTrainer", "GanTrainer", "AdversarialTrainer"),
    ),
    Source(
        "evaluator", "monai.engines", named("Evaluator", "SupervisedEvaluator", "EnsembleEvaluator")
    ),
    Source("prepare_batch", "monai.engines", subclass_of(PrepareBatch)),
)


# --- What is left out ---------------------------------------------------------------------------

BASE = "a base class that does nothing by itself"
BLOCK = "a part of a network, not a network"
NEEDS_CALLABLE = "needs a function, which a configuration cannot give"
WRAPPER = "calls any class of another package by name, with any arguments"
NVTX = "marks ranges for the NVIDIA profiler, not for use in training"
DOWNLOAD = "downloads weights from the internet"
MACHINE = "measures the machine, not the network"
EACH_CASE = "hands out the score of each case, which is no average over a data set"
OWN_WEIGHTS = "a layer with weights of its own, which no optimizer would train"

# (kind, pattern for the class name) -> reason. Abstract classes are left out without an entry.
EXCLUDED: Mapping[tuple[str, str], str] = {
    ("network", "Bert*"): BLOCK,
    ("network", "MultiModal"): BLOCK,
    ("network", "Pooler"): BLOCK,
    ("network", "HighResBlock"): BLOCK,
    ("network", "ResNetBlock"): BLOCK,
    ("network", "ResNetBottleneck"): BLOCK,
    ("network", "PatchMerging*"): BLOCK,
    ("network", "Transchex"): DOWNLOAD,
    ("loss", "PerceptualLoss"): DOWNLOAD,
    ("loss", "AdaptiveLogSoftmaxWithLoss"): OWN_WEIGHTS,
    ("loss", "LinearCrossEntropyLoss"): OWN_WEIGHTS,
    ("optimizer", "Optimizer"): BASE,
    ("lr_scheduler", "LRScheduler"): BASE,
    ("lr_scheduler", "LambdaLR"): NEEDS_CALLABLE,
    ("lr_scheduler", "MultiplicativeLR"): NEEDS_CALLABLE,
    ("transform", "Padd"): BASE,
    ("transform", "Cropd"): BASE,
    ("transform", "RandCropd"): BASE,
    ("transform", "Ensembled"): NEEDS_CALLABLE,
    ("transform", "*TorchVisiond"): WRAPPER,
    ("transform", "*TorchIOd"): WRAPPER,
    ("transform", "*CuCIMd"): WRAPPER,
    ("transform", "*ImageFilterd"): "takes a module or an array as its filter",
    ("handler", "TensorBoardHandler"): BASE,
    ("handler", "Range*Handler"): NVTX,
    ("handler", "MarkHandler"): NVTX,
    ("handler", "TrtHandler"): "compiles the network and writes and loads native code",
    ("handler", "ParamSchedulerHandler"): NEEDS_CALLABLE,
    ("metric", "MetricsLambda"): NEEDS_CALLABLE,
    ("metric", "EpochMetric"): NEEDS_CALLABLE,
    ("metric", "VariableAccumulation"): NEEDS_CALLABLE,
    ("metric", "FID"): DOWNLOAD,
    ("metric", "Frequency"): MACHINE,
    ("metric", "GpuInfo"): MACHINE,
    ("metric", "PrecisionRecallCurve"): EACH_CASE,
    ("metric", "RocCurve"): EACH_CASE,
    ("metric", "InceptionScore"): DOWNLOAD,
}


# Classes that send what they see to another machine, or read back files that they take for their
# own: usable with the consent of the site only.
CONSENT: Mapping[str, str] = {
    "monai.data.dataset.CacheNTransDataset": "code",
    "monai.data.dataset.PersistentDataset": "code",
    "monai.handlers.clearml_handlers.ClearMLImageHandler": "egress",
    "monai.handlers.clearml_handlers.ClearMLStatsHandler": "egress",
    "monai.handlers.mlflow_handler.MLFlowHandler": "egress",
}

# Packages that mmar-fl brings, or that a class does without: one for GPUs, one for downloads.
PROVIDED = frozenset(
    [
        "PIL",
        "einops",
        "ignite",
        "monai",
        "nibabel",
        "numpy",
        "packaging",
        "scipy",
        "skimage",
        "tensorboard",
        "torch",
        "tqdm",
    ]
)
DISPENSABLE = frozenset(
    ["cucim", "cupy", "cupyx", "gdown", "huggingface_hub", "pandas", "tensorboardX"]
)

# Classes that need a package through another class, or only for an argument that is refused.
NEEDED: Mapping[str, tuple[str, ...]] = {
    "monai.handlers.metrics_reloaded_handler.MetricsReloadedBinaryHandler": ("MetricsReloaded",),
    "monai.handlers.metrics_reloaded_handler.MetricsReloadedCategoricalHandler": (
        "MetricsReloaded",
    ),
    "monai.networks.nets.daf3d.DAF3D": ("torchvision",),
    "monai.networks.nets.netadapter.NetAdapter": (),  # for node_name alone
    "monai.networks.nets.quicknat.Quicknat": (),  # for se_block alone
}

# --- Where **kwargs end up ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The names among ``**kwargs`` that have an effect, found by reading the class.

    Attributes:
        to: who reads them; for the reviewer.
        arguments: the names; all of them optional.
    """

    to: str
    arguments: tuple[str, ...] = ()


PADDING = Forwarded(
    "monai.transforms.croppad.functional.pad_nd, and on to torch.nn.functional.pad or numpy.pad",
    ("value", "constant_values", "end_values", "stat_length", "reflect_type"),
)

# Forwarding to the constructor of a base class is found in the source and needs no entry.
FORWARDED: Mapping[str, Forwarded] = {
    "monai.inferers.inferer.PatchInferer": Forwarded(
        "monai.inferers.AvgMerger, the only merger allowed",
        ("merged_shape", "cropped_shape", "device"),
    ),
    "monai.inferers.inferer.SaliencyInferer": Forwarded(
        "monai.visualize.CAM (fc_layers), GradCAM and GradCAMpp (register_backward)",
        ("fc_layers", "register_backward", "upsampler", "postprocessing"),
    ),
    "monai.losses.spatial_mask.MaskedLoss": Forwarded(
        "nobody: they are used only where `loss` is a class, and a configuration gives an object"
    ),
    "monai.networks.nets.torchvision_fc.TorchVisionFCModel": Forwarded(
        "the torchvision model; what it takes depends on `model_name`, so none is accepted"
    ),
    "monai.transforms.croppad.dictionary.BorderPadd": PADDING,
    "monai.transforms.croppad.dictionary.CropForegroundd": PADDING,
    "monai.transforms.croppad.dictionary.DivisiblePadd": PADDING,
    "monai.transforms.croppad.dictionary.ResizeWithPadOrCropd": PADDING,
    "monai.transforms.croppad.dictionary.SpatialPadd": PADDING,
    "monai.transforms.io.dictionary.LoadImaged": Forwarded(
        "the readers of monai.data, each of which passes on what it does not know",
        (
            "affine_lps_to_ras",
            "allow_pickle",
            "as_closest_canonical",
            "channel_dim",
            "converter",
            "fname_regex",
            "index_order",
            "label_dict",
            "npz_keys",
            "prune_metadata",
            "reverse_indexing",
            "series_meta",
            "series_name",
            "squeeze_non_spatial_dims",
            "swap_ij",
            "to_gpu",
        ),
    ),
    # The old n_classes, num_classes, threshold_values and logit_thresh are swallowed unread.
    "monai.transforms.post.dictionary.Activationsd": Forwarded("Activations.__call__", ("dim",)),
    "monai.transforms.post.dictionary.AsDiscreted": Forwarded(
        "AsDiscrete.__call__", ("dim", "keepdim", "dtype")
    ),
    "monai.transforms.spatial.dictionary.GridPatchd": PADDING,
    "monai.transforms.spatial.dictionary.RandGridPatchd": PADDING,
    "monai.transforms.spatial.dictionary.RandZoomd": PADDING,
    "monai.transforms.spatial.dictionary.Zoomd": PADDING,
    "monai.transforms.utility.dictionary.FlattenSequenced": Forwarded(
        "monai.transforms.FlattenSequence, which takes nothing"
    ),
    # `dtype` and `memory_format` have no JSON form that Tensor.to understands.
    "monai.transforms.utility.dictionary.ToDeviced": Forwarded(
        "torch.Tensor.to", ("non_blocking", "copy")
    ),
}

# --- Reading constructors -----------------------------------------------------------------------


class GenerationError(Exception):
    """Something in the packages that a person has to look at."""


def path_of(cls: type) -> str:
    """The module and qualified name under which the class is defined."""
    return f"{cls.__module__}.{cls.__qualname__}"


def constructor_arguments(cls: type, mro: tuple[type, ...] | None = None) -> dict[str, bool]:
    """Each constructor argument of ``cls`` that has an effect, and whether it is required.

    Args:
        cls: the class to look at.
        mro: the method resolution order of the class that is built, where ``cls`` is one of its
            bases; decides what ``super()`` means.
    """
    order = mro or cls.__mro__
    following = order[order.index(cls) :]
    owner = next(base for base in following if "__init__" in vars(base))
    if owner in (object, torch.nn.Module):
        return {}
    parameters = list(inspect.signature(owner.__init__).parameters.values())[1:]  # type: ignore[misc]  # the constructor is inspected, not called
    explicit = {
        parameter.name: parameter.default is parameter.empty
        for parameter in parameters
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            # The own parameters go first, since positional arguments are matched by this order.
            return explicit | forwarded_arguments(owner, order, parameter.name) | explicit
    return explicit


def forwarded_arguments(owner: type, mro: tuple[type, ...], keywords: str) -> dict[str, bool]:
    """The arguments that the constructor of ``owner`` takes through ``**keywords``."""
    path = path_of(owner)
    if path in FORWARDED:
        return dict.fromkeys(FORWARDED[path].arguments, False)
    found: dict[str, bool] = {}
    calls = list(base_constructor_calls(owner, mro, keywords))
    for call, base in calls:
        taken = constructor_arguments(base, mro)
        bound = bound_arguments(call, list(taken))
        found |= {name: required for name, required in taken.items() if name not in bound}
    if not calls:
        raise GenerationError(f"{path}: say in FORWARDED where its **{keywords} go")
    return found


def base_constructor_calls(
    owner: type, mro: tuple[type, ...], keywords: str
) -> Iterator[tuple[ast.Call, type]]:
    """The calls of base constructors that pass ``**keywords`` on, each with the base."""
    source = textwrap.dedent(inspect.getsource(owner.__init__))  # type: ignore[misc]  # read, not called
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and passes_on(node, keywords):
            base = constructor_target(node.func, owner, mro)
            if base is not None:
                yield node, base


def passes_on(call: ast.Call, keywords: str) -> bool:
    """Whether the call has ``**keywords`` among its arguments."""
    return any(
        keyword.arg is None and isinstance(keyword.value, ast.Name) and keyword.value.id == keywords
        for keyword in call.keywords
    )


def constructor_target(function: ast.expr, owner: type, mro: tuple[type, ...]) -> type | None:
    """The base whose constructor is meant by ``super().__init__`` or ``Base.__init__``."""
    if not isinstance(function, ast.Attribute) or function.attr != "__init__":
        return None
    if isinstance(function.value, ast.Call):
        return mro[mro.index(owner) + 1]
    if isinstance(function.value, ast.Name):
        name = function.value.id
        return next((base for base in mro if base.__name__ == name), None)
    return None


def bound_arguments(call: ast.Call, parameters: list[str]) -> set[str]:
    """The parameters that the call already fills, so that they cannot come with ``**kwargs``."""
    by_keyword = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
    positional = [
        argument
        for argument in call.args
        if not isinstance(argument, ast.Starred)
        and not (isinstance(argument, ast.Name) and argument.id == "self")
    ]
    return by_keyword | set(parameters[: len(positional)])


# --- Packages that a class needs ----------------------------------------------------------------


def needed_packages(cls: type) -> list[str]:
    """The packages to import that a class names, but for those that are there or dispensable."""
    found: set[str] = set()
    for owner in cls.__mro__:
        if owner.__module__.partition(".")[0] in ("monai", "ignite"):
            found |= set(named_packages(owner))
    return sorted(
        NEEDED.get(path_of(cls), found - PROVIDED - DISPENSABLE - sys.stdlib_module_names)
    )


def named_packages(cls: type) -> Iterator[str]:
    """The packages that the source of a class imports, or that it knows by MONAI's imports."""
    known = optional_imports(cls.__module__)
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls)))):
        if isinstance(node, ast.Name) and node.id in known:
            yield known[node.id]
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)


@cache
def optional_imports(module: str) -> Mapping[str, str]:
    """The names in a module that stand for something of a package which may be missing."""
    found = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        call = getattr(node, "value", None)
        if isinstance(node, ast.Assign) and isinstance(call, ast.Call) and call.args:
            target, package = node.targets[0], call.args[0]
            first = target.elts[0] if isinstance(target, ast.Tuple) else target
            named = getattr(call.func, "id", "") == "optional_import"
            if named and isinstance(first, ast.Name) and isinstance(package, ast.Constant):
                found[first.id] = str(package.value).partition(".")[0]
    return found


# --- The table ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Table:
    """What is written to the file, while it is being collected."""

    components: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    used_exclusions: set[tuple[str, str]] = field(default_factory=set)

    def add(self, source: Source) -> None:
        """Adds the classes of one namespace; names that are taken already stay as they are."""
        names = self.names.setdefault(source.kind, {})
        for name, cls in public_classes(source):
            if inspect.isabstract(cls) or self.is_excluded(source.kind, cls):
                continue
            path = path_of(cls)
            if path not in self.components:
                self.components[path] = describe(cls, source)
            if self.components[path]["kind"] != source.kind:
                raise GenerationError(f"{path} would be of two kinds")
            names.setdefault(name, path)

    def is_excluded(self, kind: str, cls: type) -> bool:
        """Whether the class is left out; notes which entry of ``EXCLUDED`` said so."""
        for entry in EXCLUDED:
            if entry[0] == kind and fnmatchcase(cls.__name__, entry[1]):
                self.used_exclusions.add(entry)
                return True
        return False


def public_classes(source: Source) -> Iterator[tuple[str, type]]:
    """The classes of a namespace that fit its kind, by every public name they have there."""
    package = source.namespace.partition(".")[0]
    namespace = import_module(source.namespace)
    for name in sorted(dir(namespace)):
        cls = getattr(namespace, name)
        if name.startswith("_") or not inspect.isclass(cls):
            continue
        if cls.__module__.partition(".")[0] == package and source.accepts(cls):
            yield name, cls


def describe(cls: type, source: Source) -> dict[str, Any]:
    """The entry of one class, as it stands in the file."""
    path = path_of(cls)
    required = constructor_arguments(cls)
    arguments = {name: form_of(cls, source.kind, name) for name in required}
    entry = {"kind": source.kind, "namespace": source.namespace, "arguments": arguments}
    needed = [
        name for name in required if required[name] or must_be_off(cls, arguments[name], name)
    ]
    refused = [name for name in needed if "denied" in FORMS.get(arguments[name], ())]
    if refused:
        raise GenerationError(f"{path} requires an argument that is refused: {sorted(refused)}")
    packages = needed_packages(cls)
    optional = {"required": needed, "consent": CONSENT.get(path), "packages": packages}
    return entry | {key: value for key, value in optional.items() if value}


def form_of(cls: type, kind: str, name: str) -> str:
    """The name of the form of one argument: the closest decision, else that of a plain value.

    Raises:
        GenerationError: there is no decision, and the argument is not a plain flag or number.
    """
    reviewed = BY_CLASS.get(path_of(cls), {}).get(name) or BY_KIND.get((kind, name))
    form = reviewed or BY_NAME.get(name) or plain_form(parameter_of(cls, name), kind)
    if form is None:
        raise GenerationError(
            f"{path_of(cls)}: read what becomes of {name!r}, {parameter_of(cls, name)}, and give "
            "it a form in scripts/component_review"
        )
    return form


CONTAINERS = frozenset({"Sequence", "Iterable", "Optional", "list", "tuple", "None"})


def plain_form(parameter: inspect.Parameter | None, kind: str) -> str | None:
    """The form of a flag or a number, or of lists of them, by annotation or default; else None."""
    if parameter is None:
        return None
    annotation, default = parameter.annotation, parameter.default
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    types = {part.rpartition(".")[2] for part in re.findall(r"[\w.]+", text)} - CONTAINERS
    if annotation is parameter.empty and isinstance(default, bool | int | float):
        types = {type(default).__name__}
    whole, real = NUMBERS[kind]
    forms = {frozenset({"bool"}): "flag", frozenset({"int"}): whole}
    return forms.get(frozenset(types), real if types and types <= {"int", "float"} else None)


def parameter_of(cls: type, name: str) -> inspect.Parameter | None:
    """The parameter of the constructor, or of that of the nearest base that has the name."""
    for base in cls.__mro__:
        if "__init__" in vars(base) and base is not object:
            found = inspect.signature(base.__init__).parameters.get(name)  # type: ignore[misc]  # read, not called
            if found is not None:
                return found
    return None


def must_be_off(cls: type, form: str, name: str) -> bool:
    """Whether a flag that has to be false is true where it is left out, so that it is required."""
    return "off" in FORMS.get(form, ()) and default_of(cls, name) is not False


def default_of(cls: type, argument: str) -> object:
    """The default value of an argument of the constructor itself."""
    return inspect.signature(cls.__init__).parameters[argument].default  # type: ignore[misc]  # read, not called


def build_table() -> Table:
    """The table for the installed packages.

    Raises:
        GenerationError: a class needs a decision, or a decision no longer concerns any class.
    """
    table = Table()
    for source in SOURCES:
        table.add(source)
    require_used(table)
    return table


def require_used(table: Table) -> None:
    """Raise ``GenerationError`` for a decision that no longer concerns any class of the table."""
    stale = [f"{kind} {pattern}" for kind, pattern in EXCLUDED.keys() - table.used_exclusions]
    for decisions in (FORWARDED, CONSENT, BY_CLASS, NEEDED):
        stale += sorted(set(decisions) - set(table.components))
    stale += sorted(unused_decisions(table))
    if stale:
        raise GenerationError("decisions about classes that are not there: " + ", ".join(stale))


def unused_decisions(table: Table) -> Iterator[str]:
    """Decisions about arguments that no class has, or that no class asks for; unused forms."""
    given = {
        (path, entry["kind"], name)
        for path, entry in table.components.items()
        for name in entry["arguments"]
    }
    by_class = {(path, name) for path, forms in BY_CLASS.items() for name in forms}
    yield from (f"{path}.{name}" for path, name in by_class - {(p, n) for p, _, n in given})
    left = {(kind, name) for path, kind, name in given if (path, name) not in by_class}
    yield from (f"{kind} {name}" for kind, name in BY_KIND.keys() - left)
    yield from BY_NAME.keys() - {name for kind, name in left if (kind, name) not in BY_KIND}
    yield from FORMS.keys() - used_forms(table).keys()


def used_forms(table: Table) -> dict[str, Mapping[str, Any]]:
    """The forms that the classes use, and the forms of their members."""
    entries = table.components.values()
    waiting = sorted({form for entry in entries for form in entry["arguments"].values()})
    found: dict[str, Mapping[str, Any]] = {}
    while waiting:
        name = waiting.pop()
        if name not in found:
            listed = {"words": name.removeprefix(WORDS).lower().split()}
            found[name] = listed if name.startswith(WORDS) else FORMS[name]
            waiting += found[name].get("members", {}).values()
    return found


def render(table: Table) -> str:
    """The text of the file: one entry per line, so that a change is read at a glance."""
    versions = {package: version(package).partition("+")[0] for package in PACKAGES}
    blocks = [
        f'"generated_from": {json.dumps(versions)}',
        block("forms", used_forms(table)),
        block("components", table.components),
    ]
    kinds = [block(kind, table.names[kind], indent="  ") for kind in sorted(table.names)]
    blocks.append('"names": {\n' + ",\n".join(kinds) + "\n}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def block(key: str, entries: Mapping[str, object], indent: str = "") -> str:
    """A JSON member whose value is an object with one sorted entry per line."""
    lines = [
        f"{indent}  {json.dumps(name)}: {json.dumps(entries[name])}" for name in sorted(entries)
    ]
    return f"{indent}{json.dumps(key)}: {{\n" + ",\n".join(lines) + f"\n{indent}}}"


# --- What MONAI has renamed, dropped or set anew --------------------------------------------------


def changes(table: Table) -> dict[str, Any]:
    """The arguments that old documents may give: reviewed ones, and the installed release's own."""
    renamed = {pair: set(classes) for pair, classes in RENAMED.items()}
    defaults: dict[str, dict[str, Any]] = {}
    for path in table.components:
        for record in deprecation_records(path):
            name, words = path.rpartition(".")[2], record_words(record)
            if record.func.id == "deprecated_arg_default":  # type: ignore[attr-defined]  # see there
                defaults.setdefault(name, {})[words["name"]] = default_of(
                    class_of(path), words["name"]
                )
            elif accepts(table, path, words["name"]):
                renamed.setdefault((words["name"], words["new_name"]), set()).add(name)
    for (old, new), classes in renamed.items():
        for name in sorted(classes):
            paths = [path for path in table.components if path.endswith(f".{name}")]
            if not any(new in table.components[path]["arguments"] for path in paths):
                raise GenerationError(f"{name} takes no {new!r}, the new name of {old!r}")
    return {
        "renamed": {f"{old} {new}": sorted(classes) for (old, new), classes in renamed.items()},
        "dropped": {name: sorted(classes) for name, classes in DROPPED.items()},
        "today": defaults,
        "clara": by_place(CLARA_DEFAULTS),
        "clara 4.0": by_place(CLARA_4_0_DEFAULTS),
    }


def by_place(defaults: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    """Class and argument, as one text -> the default."""
    return {f"{name} {argument}": value for (name, argument), value in defaults.items()}


def deprecation_records(path: str) -> Iterator[ast.Call]:
    """The decorators of a constructor that speak of an argument, as they are written."""
    constructor = vars(class_of(path)).get("__init__")
    if constructor is None:
        return
    tree = ast.parse(textwrap.dedent(inspect.getsource(constructor))).body[0]
    for decorator in tree.decorator_list:  # type: ignore[attr-defined]  # it is a function
        name = getattr(getattr(decorator, "func", None), "id", "")
        if name in ("deprecated_arg", "deprecated_arg_default"):
            yield decorator


def record_words(record: ast.Call) -> dict[str, Any]:
    """The arguments of a deprecation record by their names."""
    given = dict(zip(("name", "since"), record.args, strict=False))
    given |= {keyword.arg or "": keyword.value for keyword in record.keywords}
    return {name: ast.literal_eval(value) for name, value in given.items()}


def accepts(table: Table, path: str, argument: str) -> bool:
    """Whether the table lets an argument through; the review may have refused it already."""
    form = table.components[path]["arguments"].get(argument)
    return form is not None and "denied" not in FORMS.get(form, ())


def class_of(path: str) -> type:
    """The class with that path."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)  # type: ignore[no-any-return]  # the table's own


def main(arguments: list[str] | None = None) -> int:
    """Writes the tables, or compares them with the files; the result is the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="exit 1 if the file is out of date")
    options = parser.parse_args(arguments)
    table = build_table()
    texts = {OUTPUT: render(table), CHANGES: json.dumps(changes(table), indent=1) + "\n"}
    outdated = []
    for file, text in texts.items():
        if not options.check:
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            outdated.append(file.name)
    for name in outdated:
        print(f"{name} is out of date: run {Path(__file__).name}", file=sys.stderr)
    return int(bool(outdated))


if __name__ == "__main__":
    sys.exit(main())

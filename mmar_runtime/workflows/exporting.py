"""A trained network as a file that runs without this project: TorchScript, ``.pt2`` or ONNX."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch.jit import TracerWarning  # type: ignore[attr-defined]  # it lacks an __all__

from mmar_runtime.components.builder import BuildContext, ComponentBuilder
from mmar_runtime.components.network import network_spec
from mmar_runtime.config import consistency
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import Node, plain
from mmar_runtime.config.sections import TrainConfig
from mmar_runtime.errors import CheckpointError, ComponentError, ConfigError, MmarError, Problem
from mmar_runtime.files import write_atomically
from mmar_runtime.policy.component_check import component_check
from mmar_runtime.results import EXPORT_SUFFIXES, ExportFormat, ExportMethod, ExportResult
from mmar_runtime.weights import Checkpoint, load_into, read_checkpoint

logger = logging.getLogger(__name__)

TOLERANCES: Mapping[ExportFormat, float] = MappingProxyType(
    # torch runs the same kernels from its own files; they have answered with the same bits. ONNX
    # Runtime has kernels of its own, and sums an instance norm in single precision: for a UNet on
    # 160 voxels a side that alone made 1e-4, while a wrong operator makes a tenth and more.
    {"torchscript": 1e-5, "torch_export": 1e-5, "onnx": 1e-3}
)
"""How far a file's answer may be from the network's, as a part of the answer's largest value."""

ONNX_PACKAGES = ("onnx", "onnxscript")
ONNX_RUNTIME = "onnxruntime"

INPUT_NAME = "image"
OUTPUT_NAME = "pred"
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """A random input (batch, channel, spatial...) and the network's own answer to it."""

    input: torch.Tensor
    expected: tuple[torch.Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.input.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """A writer's report on its file."""

    method: ExportMethod
    notices: tuple[str, ...] = ()


def export(
    config: TrainConfig,
    *,
    model_path: Path,
    output_path: Path,
    input_shape: tuple[int, ...] | None,
    format: ExportFormat,
    verify: bool,
    allow_code: bool,
) -> ExportResult:
    """Write the network with the weights of a checkpoint as a file of this format.

    The network is that of the checkpoint's training, else the config's. It runs
    on the CPU, in evaluation mode. The file is loaded again and compared with it before it takes
    its place; if anything fails, ``output_path`` keeps its content.

    Args:
        config: the training workflow.
        model_path: the checkpoint.
        output_path: the file to write, in a folder that need not exist.
        input_shape: shape of the random input (batch, channel, spatial...); None means that of the
            config's ``network_summary``.
        format: of the file.
        verify: whether to compare the file's answer with the network's.
        allow_code: whether the network may come from the MMAR's own code.

    Raises:
        ConfigError: a path, a shape or the network's component is wrong, or a package is missing.
        CheckpointError: no checkpoint, or the file's answer is not the network's.
        WeightsError: the weights do not fit the network; the error names the tensors.
        ComponentError: the network cannot be built, or not be written in this format.
    """
    if output_path.is_dir():
        raise _refused("output_path", f"{str(output_path)!r} is a folder", "Name a file in it.")
    if output_path.resolve() == model_path.resolve():
        message = f"{str(output_path)!r} is the checkpoint itself"
        raise _refused("output_path", message, "Name another file; the checkpoint stays.")
    _check_packages(format, verify=verify)
    network, notices = _trained_network(config, model_path, allow_code=allow_code)
    trial = _trial(network, input_shape or config.settings.input_size)
    with tempfile.TemporaryDirectory(prefix="mmar-export-") as folder:
        # Some loaders ask for the usual suffix, which the user's own name may not have.
        candidate = Path(folder) / f"model{EXPORT_SUFFIXES[format]}"
        written = _write(format, network, trial, candidate)
        difference = _verified(format, candidate, trial) if verify else None
        try:
            with candidate.open("rb") as source:
                write_atomically(output_path, lambda stream: shutil.copyfileobj(source, stream))
        except OSError as error:
            raise CheckpointError(f"{str(output_path)!r} cannot be written: {error}") from error
    return ExportResult(
        path=output_path,
        format=format,
        method=written.method,
        verified=difference is not None,
        max_difference=difference,
        input_shape=None if trial is None else trial.shape,
        notices=(*notices, *written.notices),
    )


# --- Checks before any work -----------------------------------------------------------------------


def _check_packages(format: ExportFormat, *, verify: bool) -> None:
    if format != "onnx":
        return
    for name in (*ONNX_PACKAGES, *((ONNX_RUNTIME,) if verify else ())):
        try:
            import_module(name)
        except ImportError as error:
            raise _refused(
                "format",
                f"onnx needs the package {name!r}, which cannot be imported: {error}",
                "Install the extra that brings it: pip install 'mmar-fl[onnx]'",
            ) from error


def _refused(place: str, message: str, advice: str) -> ConfigError:
    return ConfigError([Problem(Location(place), message, advice, "export")])


# --- The network ----------------------------------------------------------------------------------


def _trained_network(
    config: TrainConfig, path: Path, *, allow_code: bool
) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """Return the network with the checkpoint's weights, and notices about its choice."""
    checkpoint = read_checkpoint(path)
    node, notices = _chosen_network(checkpoint, path, config)
    whole = config.with_train(config.train.replaced(model=node))
    problems = [*consistency.problems(whole), *component_check(allow_code=allow_code)(whole)]
    if problems:
        raise ConfigError(problems)
    context = BuildContext(device=torch.device("cpu"), allow_code=allow_code)
    # The first weights are drawn at random; the caller's own random numbers go on as before.
    with torch.random.fork_rng(devices=[]):
        network = ComponentBuilder(whole, context).get("train", "model")
    if not isinstance(network, torch.nn.Module):
        raise ComponentError(f"{node.location}: a {type(network).__name__} is not a network")
    load_into(network, checkpoint.weights, source=str(path))
    return network.eval(), notices


def _chosen_network(
    checkpoint: Checkpoint, path: Path, config: TrainConfig
) -> tuple[Node, tuple[str, ...]]:
    """Return the checkpoint's own network if it names one, else the config's.

    Weights often fit several networks (another activation, say), but only the network that they
    were trained with gives them their meaning.
    """
    configured = config.train.entries.get("model")
    stored = (checkpoint.train_conf or {}).get("train")
    if not (isinstance(stored, Mapping) and "model" in stored):
        if configured is not None:
            return configured, ()
        message = f"is missing, and {path.name} does not say what the network is either"
        place = config.train.location / "model"
        raise ConfigError([Problem(place, message, "", "model")])
    own = network_spec(checkpoint, path, config)
    if configured is None:
        return own, ()
    differences = _differences(plain(own), plain(configured))
    if not differences:
        return configured, ()
    notice = (
        f"{path.name} was trained with another network than {config.file} names; its own is "
        f"exported. They differ in: {', '.join(differences)}"
    )
    return own, (notice,)


def _differences(old: Any, new: Any, place: str = "model") -> list[str]:
    """Return the places where two JSON values differ."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [place]
    places = []
    for key in sorted(old.keys() | new.keys()):
        if key in old and key in new:
            places += _differences(old[key], new[key], f"{place}.{key}")
        else:
            places.append(f"{place}.{key}")
    return places


# --- Its answer to a random input -----------------------------------------------------------------


def _trial(network: torch.nn.Module, shape: tuple[int, ...] | None) -> _Trial | None:
    """Return a random input of this shape with the network's answer; None without a shape."""
    if shape is None:
        return None
    try:
        image = _random_input(shape)
        with torch.no_grad():
            answer = network(image)
    except Exception as error:  # any exception of the network's own code
        raise _refused(
            "input_shape",
            f"the network refuses an input of shape {list(shape)}: "
            f"{type(error).__name__}: {_first_line(error)}",
            "It has to be [batch, channels, voxels along each axis] of this network.",
        ) from error
    return _Trial(input=image, expected=_tensors(answer))


def _random_input(shape: tuple[int, ...]) -> torch.Tensor:
    """Return values from 0 to 1, equal for every call with this shape."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(SEED))


def _needed(trial: _Trial | None, purpose: str) -> _Trial:
    """Return the trial.

    Raises:
        ConfigError: there is none, because nobody gave a shape.
    """
    if trial is not None:
        return trial
    raise _refused(
        "input_shape",
        f"is needed {purpose}, and the config has no network_summary to take it from",
        'Give it as --input_shape "[1, 1, 96, 96, 96]": batch, channels, voxels along each axis.',
    )


def _tensors(answer: Any) -> tuple[torch.Tensor, ...]:
    """Return the tensors in a network's answer, in their order; None for other values."""
    match answer:
        case torch.Tensor():
            return (answer.detach(),)
        case np.ndarray():
            return (torch.from_numpy(answer),)
        case None:
            return ()
        case Mapping():
            return _tensors(list(answer.values()))
        case list() | tuple():
            return tuple(tensor for item in answer for tensor in _tensors(item))
    raise ComponentError(
        f"the network answers with a {type(answer).__name__}; only tensors, alone or in lists, "
        "tuples and mappings, can be exported"
    )


def _first_line(error: BaseException) -> str:
    """Return the first line of an error that says something; torch's errors go on for pages."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")


# --- Writing --------------------------------------------------------------------------------------


def _write(
    format: ExportFormat, network: torch.nn.Module, trial: _Trial | None, path: Path
) -> _Written:
    """Write the network to a file of its own."""
    try:
        if format == "torchscript":
            return _write_torchscript(network, trial, path)
        needed = _needed(trial, f"for {format}")
        with _exporter_at_work():
            program, method = _program(network, needed)
            if format == "onnx":
                _write_onnx(program, method, needed, path)
            else:
                torch.export.save(program, path)
        fixed = f"the network fixes its batch size; the file takes only {list(needed.shape)}"
        return _Written(method=method, notices=(fixed,) if method == "fixed_shape" else ())
    except MmarError:
        raise
    except Exception as error:  # torch's exporters raise any exception
        raise ComponentError(
            f"{type(network).__name__} cannot be exported as {format}: "
            f"{type(error).__name__}: {_first_line(error)}\n    Another --format may do."
        ) from error


def _write_torchscript(network: torch.nn.Module, trial: _Trial | None, path: Path) -> _Written:
    """Script the network; trace it where it has code that TorchScript does not know."""
    try:
        with warnings.catch_warnings():
            # torch points to torch.export here, and reports what its compiler skips; what comes
            # out is compared with the network.
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.script(network), path)
        return _Written(method="script")
    except Exception as error:  # the compiler fails in as many ways as there are networks
        reason = _first_line(error)
    needed = _needed(trial, f"to trace the network, which cannot be scripted ({reason})")
    return _write_trace(network, needed, path, reason)


def _write_trace(network: torch.nn.Module, trial: _Trial, path: Path, reason: str) -> _Written:
    """Record the operations of the network on an input."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        # Branches in torch's own code are not decisions of the network; torch skips them too.
        warnings.filterwarnings("always", category=TracerWarning)
        warnings.filterwarnings("ignore", category=TracerWarning, module=r"torch\.(?!jit)")
        # Without torch's own check, because the file is compared with the network.
        torch.jit.save(torch.jit.trace(network, trial.input, check_trace=False), path)
    notices = [f"the network was traced, because it cannot be scripted: {reason}"]
    if caught:
        notices.append(
            "the network decides something by its input; the trace has fixed that for inputs like "
            f"the one of shape {list(trial.shape)}"
        )
    return _Written(method="trace", notices=tuple(notices))


def _program(
    network: torch.nn.Module, trial: _Trial
) -> tuple[torch.export.ExportedProgram, ExportMethod]:
    """Return the exported program, for any batch size if the network allows that."""
    # torch takes a batch of one for a constant, and comparing with another than the seen batch
    # here shows that the size is free.
    batch, *rest = trial.shape
    larger = _random_input((batch + 1, *rest))
    try:
        program = torch.export.export(network, (larger,), dynamic_shapes=_dynamic_batch())
    except Exception as error:  # torch words the reason of a fixed size in as many ways
        logger.info("the batch size is fixed: %s", _first_line(error))
        return torch.export.export(network, (trial.input,)), "fixed_shape"
    return program, "dynamic_batch"


def _dynamic_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch")},)


def _write_onnx(
    program: torch.export.ExportedProgram, method: ExportMethod, trial: _Trial, path: Path
) -> None:
    count = len(trial.expected)
    converted = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME, *(f"{OUTPUT_NAME}_{number}" for number in range(1, count))],
        # The program has its shapes already; here they only get their names.
        dynamic_shapes=_dynamic_batch() if method == "dynamic_batch" else None,
    )
    if converted is None:
        raise TypeError("torch.onnx.export returns a program when it gets no file to write")
    converted.save(path, external_data=False)
    if len(list(path.parent.iterdir())) > 1:
        raise ComponentError("the weights are too large for one ONNX file; try another --format")


@contextmanager
def _exporter_at_work() -> Iterator[None]:
    """Hide the reports of torch's exporters on their own parts from the user."""
    exporter = logging.getLogger("torch.onnx")
    before = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(before)


# --- Comparing ------------------------------------------------------------------------------------


def _run_torchscript(path: Path, image: torch.Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch points to torch.export here too
        return torch.jit.load(path, map_location="cpu")(image)


def _run_onnx(path: Path, image: torch.Tensor) -> Any:
    runtime = import_module(ONNX_RUNTIME)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {INPUT_NAME: image.numpy()})


RUNNERS: Mapping[ExportFormat, Callable[[Path, torch.Tensor], Any]] = MappingProxyType(
    {
        "torchscript": _run_torchscript,
        "torch_export": lambda path, image: torch.export.load(path).module()(image),
        "onnx": _run_onnx,
    }
)
"""Format -> the function that loads a file and gives it an input."""


def _verified(format: ExportFormat, path: Path, given: _Trial | None) -> float:
    """Return the largest difference between the file's answer and the network's.

    Raises:
        ConfigError: there is no input to give to the two.
        CheckpointError: the file cannot be run, or the difference is larger than the tolerance.
    """
    trial = _needed(given, "to compare the file with the network")
    try:
        with torch.no_grad():
            outputs = _tensors(RUNNERS[format](path, trial.input))
    except Exception as error:  # the file is new: its loader may raise any exception
        raise CheckpointError(
            f"the exported file cannot be run on an input of shape {list(trial.shape)}: "
            f"{type(error).__name__}: {_first_line(error)}\n    Nothing was written."
        ) from error
    shapes, expected_shapes = _shapes(outputs), _shapes(trial.expected)
    if shapes != expected_shapes:
        raise CheckpointError(
            f"the exported file answers with shapes {shapes}, the network with {expected_shapes}\n"
            "    Nothing was written."
        )
    pairs = zip(trial.expected, outputs, strict=True)
    return max((_difference(*pair, TOLERANCES[format]) for pair in pairs), default=0.0)


def _shapes(tensors: tuple[torch.Tensor, ...]) -> list[list[int]]:
    return [list(tensor.shape) for tensor in tensors]


def _difference(expected: torch.Tensor, output: torch.Tensor, tolerance: float) -> float:
    """Return the largest difference between two tensors of one shape.

    Raises:
        CheckpointError: it is larger than ``tolerance`` times the largest expected value.
    """
    if expected.numel() == 0:
        return 0.0
    if not torch.isfinite(expected).all():
        raise CheckpointError(
            "the network itself answers with values that are not finite: its weights are no "
            "result of a training that went well\n    Nothing was written."
        )
    difference = float((output.double() - expected.double()).abs().max())
    allowed = tolerance * float(expected.double().abs().max())
    if not difference <= allowed:  # a difference that is not a number is not allowed either
        raise CheckpointError(
            f"the exported file differs from the network by up to {difference:.3g}; allowed is "
            f"{allowed:.3g}, {tolerance:g} of the largest value\n"
            "    Nothing was written. Another --format may do; --ignore_verify writes it untested."
        )
    return difference

"""``mmar export``: a trained network as a file, as Clara's ``medl.apps.export`` wrote it."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmar_runtime.cli.common import (
    add_mmar_arguments,
    add_output_arguments,
    print_json,
    print_note,
    set_up_run_logging,
    stop_on_signals,
)
from mmar_runtime.cli.given_values import given_values, require_used
from mmar_runtime.config.loader import TRAIN_FILE, load_train_config
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_check import component_check
from mmar_runtime.results import EXPORT_SUFFIXES, ExportFormat

if TYPE_CHECKING:
    from mmar_runtime.config.sections import TrainConfig
    from mmar_runtime.results import ExportResult

HELP = "write a trained network as TorchScript, torch.export or ONNX"
EXAMPLES = """examples:
  mmar export -m path/to/mmar --input_shape "[1, 1, 160, 160, 160]"
  mmar export -m path/to/mmar --model_path models/final_model.pt --output_path models/final.ts
  mmar export -m path/to/mmar --output_path models/model.onnx --input_shape "[1, 1, 96, 96, 96]"
"""

MEANINGS = {
    "script": "for inputs of any shape that the network takes",
    "trace": "for inputs that take the same way through the network",
    "dynamic_batch": "for any number of inputs of one size",
    "fixed_shape": "for inputs of exactly one shape",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_mmar_arguments(parser, config=TRAIN_FILE)
    parser.add_argument(
        "--model_path",
        "--model-path",
        metavar="FILE",
        help="checkpoint, relative to the MMAR (MMAR_CKPT, which is models/model.pt unless set)",
    )
    parser.add_argument(
        "--output_path",
        "--output-path",
        metavar="FILE",
        help="file to write, relative to the MMAR (MMAR_TORCHSCRIPT, which is models/model.ts "
        "unless set; for another format with that one's suffix)",
    )
    parser.add_argument(
        "--input_shape",
        "--input-shape",
        metavar="SHAPE",
        help='input to test the file with, as "[batch, channels, voxels...]" '
        "(network_summary's input_size)",
    )
    parser.add_argument(
        "--ignore_verify",
        "--ignore-verify",
        action="store_true",
        help="do not compare the file's answer with the network's",
    )
    parser.add_argument(
        "--format",
        choices=list(EXPORT_SUFFIXES),
        help="what to write (by the suffix of --output_path, else torchscript)",
    )
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Check everything, export, print the result."""
    set_up_run_logging(options)
    shape = parse_shape(options.input_shape)
    format = chosen_format(options.format, options.output_path)
    config = load_train_config(
        Mmar.open(options.mmar),
        file=options.config,
        environment=options.environment,
        overrides=given_values(options),
        checks=[component_check(allow_code=True)],
    )
    require_used(options, config)
    for notice in config.notices:
        # Translations elsewhere have no part in an export.
        if any(place.path[:2] == ("train", "model") for place in notice.places):
            print_note(notice)
    model_path, output_path = _paths(options, config, format)
    # Output of torch would take the result's place.
    with stop_on_signals(), contextlib.redirect_stdout(sys.stderr):
        # torch and MONAI take seconds to import; a config with a fault is refused before that.
        from mmar_runtime.workflows.exporting import export

        result = export(
            config,
            model_path=model_path,
            output_path=output_path,
            input_shape=shape,
            format=format,
            verify=not options.ignore_verify,
            allow_code=True,
        )
    for text in result.notices:
        print_note(text)
    if options.json:
        print_json(result.as_dict())
    else:
        print(summary(result, model_path))
    return 0


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """Return ``"[1, 1, 96, 96, 96]"`` as numbers; None stays None.

    Raises:
        ConfigError: the text is not a JSON array of at least two positive whole numbers.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if (
        isinstance(value, list)
        and len(value) >= 2
        and all(type(size) is int and size > 0 for size in value)
    ):
        return tuple(value)
    message = f"has to be an array of positive whole numbers, found {text!r}"
    advice = 'Write it as --input_shape "[1, 1, 96, 96, 96]": batch, channels, voxels.'
    raise ConfigError([Problem(Location("--input_shape"), message, advice, "input-shape")])


def chosen_format(given: ExportFormat | None, output_path: str | None) -> ExportFormat:
    """Return the format that was asked for, by name or by the file's suffix.

    Raises:
        ConfigError: the name says one format and the suffix another.
    """
    suffix = Path(output_path or "").suffix
    by_suffix = {ending: format for format, ending in EXPORT_SUFFIXES.items()}.get(suffix)
    if given is not None and by_suffix not in (None, given):
        message = f"{given} in a file that ends in {suffix!r}, which means {by_suffix}"
        advice = f"Let --output_path end in {EXPORT_SUFFIXES[given]!r}, or leave --format out."
        raise ConfigError([Problem(Location("--format"), message, advice, "export")])
    return given or by_suffix or "torchscript"


def _paths(
    options: argparse.Namespace, config: TrainConfig, format: ExportFormat
) -> tuple[Path, Path]:
    """Return the checkpoint and the file to write; relative paths are below the MMAR's folder."""
    model = options.model_path or str(config.value("MMAR_CKPT"))
    output = options.output_path
    if output is None:
        torchscript = Path(str(config.value("MMAR_TORCHSCRIPT")))
        suffix = EXPORT_SUFFIXES[format]
        output = torchscript if format == "torchscript" else torchscript.with_suffix(suffix)
    return config.mmar_root / model, config.mmar_root / output


def summary(result: ExportResult, model_path: Path) -> str:
    """Return the lines that a person wants to read at the end."""
    lines = [f"exported {model_path} as {result.format}, {MEANINGS[result.method]}"]
    if result.verified and result.input_shape is not None:
        lines.append(
            "the exported model was tested and looks good: for an input of shape "
            f"{list(result.input_shape)} it differs from the checkpoint's by at most "
            f"{result.max_difference:.2g}"
        )
    else:
        lines.append("the exported model was not tested")
    return "\n".join([*lines, f"output: {result.path}"])

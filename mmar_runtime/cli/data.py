"""``mmar data``: check a data list, make one from folders, split it, cut it into folds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from mmar_runtime.cli.common import add_output_arguments, print_json
from mmar_runtime.cli.progress import Progress
from mmar_runtime.errors import DataError
from mmar_runtime.names import visible_line

if TYPE_CHECKING:
    from mmar_runtime.datatools.document import Document
    from mmar_runtime.datatools.report import AxisSpread, DataReport
    from mmar_runtime.datatools.splitting import DataSplit, UnitOf

HELP = "check, make and split data lists"
EXAMPLES = """examples:
  mmar data check data/dataset.json --full
  mmar data list data --images imagesTr --labels labelsTr --label 0=background 1=spleen
  mmar data split data/dataset.json -o data/split.json --validation 20% --patient-key patient
  mmar data kfold data/dataset.json -o data/folds --folds 5
"""

EXIT_PROBLEMS = 2
MAX_SHOWN_PROBLEMS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands, each with its own arguments."""
    commands = parser.add_subparsers(title="commands", dest="data_command", required=True)
    for name, (text, add, _) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        add(command)
        add_output_arguments(command)


def run(options: argparse.Namespace) -> int:
    """Run the subcommand."""
    code: int = _COMMANDS[options.data_command][2](options)
    return code


# --- check ---------------------------------------------------------------------------------------


def _add_check_arguments(parser: argparse.ArgumentParser) -> None:
    _add_document_argument(parser)
    parser.add_argument(
        "--base",
        type=Path,
        metavar="DIR",
        help="folder that paths are relative to, DATA_ROOT (the data list's own)",
    )
    parser.add_argument(
        "--lists", nargs="+", default=[], metavar="KEY", help="lists to check (all of them)"
    )
    parser.add_argument(
        "--training",
        default="training",
        metavar="KEY",
        help="list that shares no image with the others (%(default)s)",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="read the voxels too: label values, value ranges, copies under another name",
    )
    parser.add_argument(
        "--task",
        choices=("segmentation", "classification"),
        default="segmentation",
        help="whether a label is a file or a value (%(default)s)",
    )


def _check(options: argparse.Namespace) -> int:
    """Print the summary on stdout and the problems on stderr."""
    # numpy and nibabel take a moment to import, and --help needs neither.
    from mmar_runtime.datatools.checking import check_data_list

    report = check_data_list(
        options.document,
        base=options.base,
        lists=options.lists,
        training=options.training,
        full=options.full,
        labels_are_files=options.task == "segmentation",
        told=Progress(),
    )
    if options.json:
        print_json(report.as_dict())
    else:
        print("\n".join(map(visible_line, _report_lines(report))), flush=True)
    if not report.ok:
        count = len(report.problems)
        lines = [f"mmar: {_counted(count, 'problem')} in the data:"]
        for problem in report.problems[:MAX_SHOWN_PROBLEMS]:
            lines += str(problem).split("\n")
        if count > MAX_SHOWN_PROBLEMS:
            lines.append(f"... and {count - MAX_SHOWN_PROBLEMS} more; --json lists them all")
        print("\n".join(map(visible_line, lines)), file=sys.stderr)
    return 0 if report.ok else EXIT_PROBLEMS


def _report_lines(report: DataReport) -> Iterator[str]:
    depth = "headers and voxels" if report.full else "headers only, --full reads the voxels too"
    yield f"{report.file.name} below {report.base}: {depth}"
    for summary in report.lists:
        yield f"{summary.key}: {_counted(summary.cases, 'case')}, {summary.labelled} labelled"
        if summary.shape is not None:
            yield f"  shape (voxels)  {_spread(summary.shape)}"
        if summary.spacing_mm is not None:
            yield f"  spacing ({summary.unit + ')':4}   {_spread(summary.spacing_mm, summary.unit)}"
        if summary.values is not None:
            yield f"  values          {summary.values.minimum:g} to {summary.values.maximum:g}"
        for share in summary.classes or ():
            label = f"{share.value} {share.name}".rstrip()
            yield f"  label {label}: {100 * share.share:.2f} %, in {_counted(share.cases, 'case')}"
    for notice in report.notices:
        yield f"note: {notice}"
    if report.ok:
        yield "no problems"


def _spread(spread: AxisSpread, unit: str = "mm") -> str:
    from mmar_runtime.datatools.volumes import by, mm_of

    if unit != "mm":
        spread = spread.divided(mm_of(unit))
    if spread.minimum == spread.maximum:
        return f"{by(spread.minimum)} in all"
    return f"min {by(spread.minimum)}, median {by(spread.median)}, max {by(spread.maximum)}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# --- list ----------------------------------------------------------------------------------------


def _add_list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", type=Path, metavar="DIR", help="the paths are relative to it")
    parser.add_argument(
        "--images", required=True, metavar="FOLDER", help="folder of the images, below DIR"
    )
    parser.add_argument("--labels", metavar="FOLDER", help="folder of the labels, below DIR")
    parser.add_argument("--test", metavar="FOLDER", help="further images that have no label")
    parser.add_argument(
        "--image-suffix",
        nargs="+",
        default=[""],
        metavar="TEXT",
        help="text after the case in image files, such as _0000; one for each channel",
    )
    parser.add_argument(
        "--label-suffix",
        default="",
        metavar="TEXT",
        help="text after the case in label files, such as _seg",
    )
    parser.add_argument(
        "--ending",
        nargs="+",
        default=[".nii.gz", ".nii"],
        metavar="ENDING",
        help="files that count (.nii.gz .nii)",
    )
    parser.add_argument("--name", default="", help="name of the data set")
    parser.add_argument(
        "--label", nargs="+", default=[], metavar="VALUE=NAME", help="meaning of a label value"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the data list (DIR/dataset.json)"
    )
    _add_overwrite_argument(parser)


def _list(options: argparse.Namespace) -> int:
    """Write the list and say how many cases it has."""
    from mmar_runtime.datatools.document import write_documents
    from mmar_runtime.datatools.listing import Naming, list_folders

    listing = list_folders(
        options.base,
        images=options.images,
        labels=options.labels,
        test=options.test,
        naming=Naming(
            image_suffixes=tuple(options.image_suffix),
            label_suffix=options.label_suffix,
            endings=tuple(options.ending),
        ),
        name=options.name,
        label_names=dict(map(_label_name, options.label)),
    )
    output: Path = options.output or options.base / "dataset.json"
    write_documents({output: listing.content}, overwrite=options.overwrite)
    if options.json:
        counts = {"training": listing.training, "test": listing.test}
        print_json({"file": str(output), "cases": counts, "passed_over": listing.passed_over})
    else:
        cases = f"{listing.training} training (with label), {listing.test} test (without)"
        print(visible_line(f"{output}: {cases}"))
        if listing.passed_over:
            files = _counted(listing.passed_over, "file")
            print(f"note: not listed, as named in another way: {files}")
    return 0


def _label_name(text: str) -> tuple[int, str]:
    value, equals, name = text.partition("=")
    if not equals or not name or not value.isdecimal():
        raise DataError(f"--label {text!r} is not VALUE=NAME, as 1=spleen")
    return int(value), name


# --- split and kfold -----------------------------------------------------------------------------


def _add_split_arguments(parser: argparse.ArgumentParser) -> None:
    _add_document_argument(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--validation", required=True, metavar="SHARE", help="0.2 or 20%%, or a number of cases"
    )
    parser.add_argument("--test", metavar="SHARE", help="the same for a test list (none)")
    parser.add_argument(
        "--test-list", default="test", metavar="KEY", help="that list's key (%(default)s)"
    )
    _add_dealing_arguments(parser)


def _split(options: argparse.Namespace) -> int:
    """Write the new list and say how many cases each part has."""
    from mmar_runtime.datatools.document import read_document, write_documents
    from mmar_runtime.datatools.splitting import parse_share, split_data_list

    document = read_document(options.document)
    split = split_data_list(
        document,
        validation=parse_share(options.validation),
        test=None if options.test is None else parse_share(options.test),
        test_key=options.test_list,
        pool=options.pool,
        seed=options.seed,
        unit_of=_unit_of(options),
    )
    write_documents({options.output: split.content}, overwrite=options.overwrite)
    _say_what_was_written({options.output: split}, document, options)
    return 0


def _add_kfold_arguments(parser: argparse.ArgumentParser) -> None:
    _add_document_argument(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="gets fold_0.json, ..."
    )
    parser.add_argument("--folds", type=int, default=5, help="number of folds (%(default)s)")
    _add_dealing_arguments(parser)


def _kfold(options: argparse.Namespace) -> int:
    """Write a list for each fold and print the number of its cases."""
    from mmar_runtime.datatools.document import read_document, write_documents
    from mmar_runtime.datatools.splitting import fold_data_list

    document = read_document(options.document)
    folds = fold_data_list(
        document,
        folds=options.folds,
        pool=options.pool,
        seed=options.seed,
        unit_of=_unit_of(options),
    )
    files = {options.output / f"fold_{number}.json": fold for number, fold in enumerate(folds)}
    # Folds of an earlier call with more folds would overlap with the new folds.
    if strange := sorted({*options.output.glob("fold_*.json")} - files.keys()):
        more = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
        raise DataError(
            f"{strange[0]}{more} belongs to other folds; remove it first, or name another folder"
        )
    write_documents(
        {file: fold.content for file, fold in files.items()}, overwrite=options.overwrite
    )
    _say_what_was_written(files, document, options)
    return 0


def _add_dealing_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        nargs="+",
        default=["training"],
        dest="pool",
        metavar="KEY",
        help="lists whose cases are dealt out (training)",
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same lists (%(default)s)")
    patient = parser.add_mutually_exclusive_group()
    patient.add_argument(
        "--patient-key", metavar="KEY", help="entry of an item that names its patient"
    )
    patient.add_argument(
        "--patient-pattern",
        metavar="REGEX",
        help="regular expression with one group, the patient in an image's file name",
    )
    _add_overwrite_argument(parser)


def _unit_of(options: argparse.Namespace) -> UnitOf:
    from mmar_runtime.datatools.splitting import by_image, by_key, by_pattern

    if options.patient_key is not None:
        return by_key(options.patient_key)
    if options.patient_pattern is not None:
        return by_pattern(options.patient_pattern)
    return by_image


def _say_what_was_written(
    files: dict[Path, DataSplit], document: Document, options: argparse.Namespace
) -> None:
    if options.json:
        print_json(
            [
                {"file": str(file), "cases": dict(split.cases), "units": dict(split.units)}
                for file, split in files.items()
            ]
        )
        return
    per_patient = options.patient_key is not None or options.patient_pattern is not None
    for file, split in files.items():
        parts = ", ".join(
            f"{cases} {name}"
            + (f" of {_counted(split.units[name], 'patient')}" if per_patient else "")
            for name, cases in split.cases.items()
        )
        print(visible_line(f"{file}: {parts}"))
    # Paths stay as they are, and a reader may take them to be relative to the list's own folder.
    if any(file.parent.resolve() != document.file.parent.resolve() for file in files):
        name = visible_line(document.file.name)
        print(f"note: paths stay relative to the folder that those of {name} are")


# --- Shared arguments ----------------------------------------------------------------------------


def _add_document_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("document", type=Path, metavar="FILE", help="a Decathlon data list")


def _add_overwrite_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that are there already"
    )


_COMMANDS = MappingProxyType(
    {
        "check": ("check files, grids, labels and overlaps", _add_check_arguments, _check),
        "list": ("make a data list from folders", _add_list_arguments, _list),
        "split": ("split into training, validation, test", _add_split_arguments, _split),
        "kfold": ("cut into folds for cross-validation", _add_kfold_arguments, _kfold),
    }
)

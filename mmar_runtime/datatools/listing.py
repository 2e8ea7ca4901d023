"""A data list from folders: images and labels are paired by the names of their files."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.datatools.document import TEST, TRAINING, natural_order, shortened
from mmar_runtime.errors import ConfigError, Problem

VOLUME_ENDINGS = (".nii.gz", ".nii")
SUFFIX_ADVICE = "Name the text after the case's name with --image-suffix and --label-suffix."


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How files are named: ``<case><suffix><ending>``.

    Attributes:
        image_suffixes: the text after the case's name in an image file, such as ``_0000``; several
            where each channel of an image is a file of its own, in the order of the channels.
        label_suffix: the same for a label file, such as ``_seg``.
        endings: which files count; others are passed over.
    """

    image_suffixes: tuple[str, ...] = ("",)
    label_suffix: str = ""
    endings: tuple[str, ...] = VOLUME_ENDINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderListing:
    """A data list made from folders.

    Attributes:
        content: the document: ``training`` has the pairs, ``test`` the images without label.
        training: number of pairs.
        test: number of images without label.
        passed_over: files of the folders that are named in another way.
    """

    content: Mapping[str, Any]
    training: int
    test: int
    passed_over: int


@dataclass(frozen=True, slots=True)
class _Found:
    """Files of a kind by case; ``paths`` are relative to the base, with forward slashes."""

    folder: str
    paths: Mapping[str, tuple[str, ...]]
    passed_over: frozenset[str]


def list_folders(
    base: Path,
    *,
    images: str,
    labels: str | None = None,
    test: str | None = None,
    naming: Naming | None = None,
    name: str = "",
    label_names: Mapping[int, str] | None = None,
) -> FolderListing:
    """Pair the images and labels of two folders, or of one folder.

    An image and a label belong together if their names agree but for suffix and ending. Cases
    are in the order of their names, ``case_2`` before ``case_10``. Files in folders below, and
    hidden ones, are passed over: unpacking an archive of a Mac leaves ``._case_1.nii.gz``.

    Args:
        base: the folder that the paths of the list will be relative to (``DATA_ROOT``).
        images: the folder of the images, relative to ``base``.
        labels: the folder of the labels; without it every image goes to ``test``.
        test: a folder of further images that have no label.
        naming: suffixes and endings.
        name: of the data set.
        label_names: label value -> name, for ``labels`` of the document.

    Raises:
        ConfigError: no such folder, no image, several files for one case, a label without image,
            or not a single pair.
    """
    naming = naming or Naming()
    shared = labels is not None and _relative(base, images) == _relative(base, labels)
    if shared and naming.label_suffix in naming.image_suffixes:
        message = "holds images and labels that nothing distinguishes"
        raise ConfigError([Problem(Location(images), message, SUFFIX_ADVICE, "pairing")])
    label_suffix, endings = naming.label_suffix, naming.endings
    channels = _channels(base, images, naming, label_suffix if shared else None)
    found_labels, test_channels = _Found("", {}, frozenset()), list[_Found]()
    if labels is not None:
        longest = max(naming.image_suffixes, key=len)
        found_labels = _files(base, labels, label_suffix, longest if shared else None, endings)
    if test is not None:
        test_channels = _channels(base, test, naming, None)
    found_images, further = _joined(channels), _joined(test_channels)
    faults = [fault for found in (channels, test_channels) for fault in _uneven(found, naming)]
    faults += _faults(found_images, found_labels, further, naming)
    if faults:
        raise ConfigError(shortened(faults))

    pairs = [
        {"image": _image(paths), "label": found_labels.paths[case][0]}
        for case, paths in _in_order(found_images)
        if case in found_labels.paths
    ]
    unlabelled = [
        files for case, files in _in_order(found_images) if case not in found_labels.paths
    ]
    alone = [*map(_test_item, unlabelled), *(_test_item(files) for _, files in _in_order(further))]
    passed_over = found_images.passed_over | found_labels.passed_over
    if shared:  # an image is not a label, and is listed all the same
        passed_over = found_images.passed_over & found_labels.passed_over
    content: dict[str, Any] = {"name": name} if name else {}
    if label_names:
        content["labels"] = {str(value): label_names[value] for value in sorted(label_names)}
    return FolderListing(
        content={**content, TRAINING: pairs, TEST: alone},
        training=len(pairs),
        test=len(alone),
        passed_over=len(passed_over | further.passed_over),
    )


def _channels(base: Path, folder: str, naming: Naming, other_suffix: str | None) -> list[_Found]:
    """Return the files of each channel of the images in a folder."""
    return [
        _files(base, folder, suffix, other_suffix, naming.endings)
        for suffix in naming.image_suffixes
    ]


def _joined(channels: Sequence[_Found]) -> _Found:
    """Return the images of all channels: the files of a case in the order of the channels.

    A file is passed over if no channel has it.
    """
    if not channels:
        return _Found("", {}, frozenset())
    cases = dict.fromkeys(case for found in channels for case in found.paths)
    paths = {
        case: tuple(path for found in channels for path in found.paths.get(case, ()))
        for case in cases
    }
    passed_over = frozenset.intersection(*(found.passed_over for found in channels))
    return _Found(channels[0].folder, paths, passed_over)


def _image(files: tuple[str, ...]) -> str | list[str]:
    return files[0] if len(files) == 1 else list(files)


def _test_item(files: tuple[str, ...]) -> str | dict[str, list[str]]:
    return files[0] if len(files) == 1 else {"image": list(files)}


def _uneven(channels: Sequence[_Found], naming: Naming) -> Iterator[Problem]:
    """Yield cases with several files for a channel, or with none."""
    cases = {case for found in channels for case in found.paths}
    for found, suffix in zip(channels, naming.image_suffixes, strict=False):
        for case, paths in _in_order(found):
            if len(paths) > 1:
                yield _ambiguous(found.folder, case, paths)
        for case in sorted(cases - found.paths.keys(), key=natural_order):
            message = f"the case {case!r} has no file {case + suffix!r}, which is a channel"
            advice = "Add the file, or move those of its other channels away."
            yield Problem(Location(found.folder), message, advice, "missing-channel")


def _ambiguous(folder: str, case: str, paths: Sequence[str]) -> Problem:
    names = ", ".join(Path(path).name for path in paths)
    message = f"holds {len(paths)} files for the case {case!r}: {names}"
    advice = "Keep one of them, or tell them apart with a suffix."
    return Problem(Location(folder), message, advice, "ambiguous-pair")


def _in_order(files: _Found) -> list[tuple[str, tuple[str, ...]]]:
    return sorted(files.paths.items(), key=lambda case: natural_order(case[0]))


def _relative(base: Path, folder: str) -> str:
    """Return the folder below the base with forward slashes; links stay as they are named.

    Raises:
        ConfigError: it is elsewhere, or there is none.
    """
    root, place = (os.path.abspath(path) for path in (base, base / folder))
    if not Path(place).is_dir():
        message = f"there is no folder {place!r}"
        advice = f"Folders are looked up below {str(base)!r}."
        raise ConfigError([Problem(Location(folder), message, advice, "missing-folder")])
    if not Path(place).is_relative_to(root):
        message = f"is not below {str(base)!r}, which the paths of a list are relative to"
        advice = "Name a base folder that holds images and labels."
        raise ConfigError([Problem(Location(folder), message, advice, "folder")])
    return Path(place).relative_to(root).as_posix()


def _files(
    base: Path, folder: str, suffix: str, other_suffix: str | None, endings: Sequence[str]
) -> _Found:
    """Return the files of a folder that have the suffix, by case.

    If images and labels share a folder, the longer suffix that fits decides the kind of a file. So
    ``a_seg`` is not an image although images have no suffix at all.
    """
    relative = Path(_relative(base, folder))
    cases: defaultdict[str, list[str]] = defaultdict(list)
    passed_over = set()
    known = sorted(endings, key=len, reverse=True)
    for entry in (base / relative).iterdir():
        if entry.name.startswith(".") or not entry.is_file():
            continue
        name = entry.name
        stems = (name[: -len(end)] for end in known if name.lower().endswith(end.lower()))
        stem = next(filter(None, stems), None)
        path = (relative / entry.name).as_posix()
        fits = stem is not None and stem.endswith(suffix) and len(stem) > len(suffix)
        longer = other_suffix if other_suffix and len(other_suffix) > len(suffix) else None
        if stem is None or not fits or (longer and stem.endswith(longer)):
            passed_over.add(path)
        else:
            cases[stem.removesuffix(suffix)].append(path)
    paths = {case: tuple(sorted(members)) for case, members in cases.items()}
    return _Found(relative.as_posix(), paths, frozenset(passed_over))


def _faults(images: _Found, labels: _Found, test: _Found, naming: Naming) -> Iterator[Problem]:
    for case, paths in _in_order(labels):
        if len(paths) > 1:
            yield _ambiguous(labels.folder, case, paths)
    if not images.paths and not test.paths:
        message = f"holds no image: no file named <case>{naming.image_suffixes[0]} with the ending "
        message += " or ".join(naming.endings)
        advice = "The folder is empty."
        if images.passed_over:
            first = Path(min(images.passed_over, key=natural_order)).name
            advice = f"It holds {first!r}, for one; name an ending or a suffix that fits."
        yield Problem(Location(images.folder), message, advice, "no-images")
    elif labels.folder and not images.paths.keys() & labels.paths.keys():
        message = f"no label belongs to an image: images are called {_example(images)}, labels "
        message += _example(labels)
        yield Problem(Location(labels.folder), message, SUFFIX_ADVICE, "pairing")
        return
    for case, paths in _in_order(labels):
        if case not in images.paths:
            message = f"there is no image for this label: no case {case!r} in {images.folder!r}"
            advice = "Add the image, or move the label away."
            yield Problem(Location(paths[0]), message, advice, "missing-pair")


def _example(files: _Found) -> str:
    if files.paths:
        return repr(Path(files.paths[min(files.paths, key=natural_order)][0]).name)
    if files.passed_over:
        return f"{Path(min(files.passed_over, key=natural_order)).name!r} (passed over)"
    return "nothing, as there are none"

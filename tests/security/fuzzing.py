"""What is fuzzed: for each target, how an input is made from a seed, and how it is run.

A target's ``run`` returns for whatever input; only errors that the code does not declare come out
of it. ``Watch`` sees what no input may cause: programs, connections, code, files elsewhere.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import struct
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar

from fl_client.job_check import check_job
from mmar_runtime.config.data_list import read_data_list
from mmar_runtime.config.expressions import (
    REFERENCE_METHODS,
    STATE_FIELDS,
    ExpressionRefused,
    Lambda,
    parse_expression,
)
from mmar_runtime.config.file_keys import FILE_KEYS
from mmar_runtime.config.location import Location
from mmar_runtime.config.log_config import read_log_config
from mmar_runtime.config.nodes import DataListSource
from mmar_runtime.config.sources import Variable
from mmar_runtime.config.variables import (
    MAX_LENGTH,
    SubstitutionError,
    looks_like_construct,
    substitute,
)
from mmar_runtime.errors import ComponentError, ConfigError
from mmar_runtime.policy.component_table import load_component_table
from mmar_runtime.policy.document_check import WORKFLOW, parse_document
from mmar_runtime.policy.files.paths import Places
from mmar_runtime.policy.lambda_forms import LAMBDA_FORMS, lambda_fault
from mmar_runtime.policy.mmar_check import check_mmar
from mmar_runtime.policy.possible_values import Possible, possible_of
from mmar_runtime.policy.verdict import Verdict
from tests.security.case import ENVIRONMENT, TRAIN, VALIDATION, Case, base_files
from tests.security.corpus import (
    archive,
    benign,
    component,
    expression,
    log_config,
    substitution,
    update,
)

SEEDS = Path(__file__).with_name("fuzz_seeds")
"""One file for each target: a JSON array of inputs that once went wrong, or are of interest."""

PLACE = Location("config_train.json") / "train"
FORMATS = (".4f", "5d", ">8", ".1%", "s")


class Target(ABC):
    """One piece of code that reads what strangers write.

    Args:
        folder: where it may write files; each process has its own.
    """

    name: str
    cost: float
    """Microseconds that an input takes, roughly; what is cheap is run more often."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def make(self, random: Random) -> Any:
        """An input; equal for equal states of ``random``."""

    @abstractmethod
    def run(self, given: Any) -> None:
        """Feed the input to the code; what is raised here is a fault."""

    @cached_property
    def kept(self) -> list[Any]:
        """The seeds that are kept in files."""
        path = SEEDS / f"{self.name}.json"
        return [self.decoded(one) for one in json.loads(path.read_text())] if path.exists() else []

    def decoded(self, kept: Any) -> Any:
        """An input as it is kept in a seed file."""
        return kept

    def encoded(self, given: Any) -> Any:
        """An input as JSON, to be kept."""
        return given


class Watch:
    """Sees, through Python's audit events, what no input may cause."""

    EVENTS = (
        "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn",
        "socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request", "ctypes.dlopen",
        "exec", "code.__new__", "marshal.loads", "pickle.find_class", "os.remove", "os.rename",
        "shutil.rmtree", "sys.settrace", "os.chmod", "os.putenv",
    )  # fmt: skip
    WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.watching = False
        self.seen: list[str] = []
        sys.addaudithook(self._event)

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        if event in self.EVENTS:
            if not (arguments and self._is_inside(arguments[0], arguments[-1])):
                self.seen.append(f"{event} {str(arguments)[:200]}")
        elif event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & self.WRITING and not self._is_inside(path):
                self.seen.append(f"open {path!r} for writing")

    def _is_inside(self, path: object, folder: object = None) -> bool:
        """Whether a path, which may be below the folder of a descriptor, is below our own."""
        if not isinstance(path, str | bytes):
            return False
        above = os.readlink(f"/proc/self/fd/{folder}") if type(folder) is int and folder > 2 else ""
        return os.path.join(above, os.fsdecode(path)).startswith(self.folder)


# --- How texts are changed -----------------------------------------------------------------------

ODD_CHARACTERS = "\0\n\r\t\x0b\x1b\x7f\x85\u00a0\u2028\u202e\ufeff\uff3f\uff45\ud800\U0001f9e0"
COMMON = "".join(map(chr, range(32, 127)))


def changed_text(random: Random, text: str, tokens: Sequence[str], others: Sequence[str]) -> str:
    """The text after one to six small changes."""
    for _ in range(random.randint(1, 6)):
        at = random.randint(0, len(text))
        end = min(len(text), at + random.choice((1, 1, 2, 5, 20)))
        kind = random.randrange(8)
        if kind == 0:
            text = text[:at] + text[end:]
        elif kind == 1:
            text = text[:at] + random.choice(COMMON) + text[at:]
        elif kind == 2:
            text = text[:at] + random.choice(tokens) + text[at:]
        elif kind == 3:
            text = text[:at] + random.choice(tokens) + text[end:]
        elif kind == 4:
            text = text[:at] + text[at:end] * random.choice((2, 3, 50)) + text[end:]
        elif kind == 5:
            other = random.choice(others)
            cut = random.randint(0, len(other))
            text = text[:at] + other[cut : cut + random.randint(1, 40)] + text[end:]
        elif kind == 6:
            text = text[:at] + random.choice(ODD_CHARACTERS) + text[end:]
        else:
            other = random.choice(others)
            text = text[:at] + other[random.randint(0, len(other)) :]
    return text[:20_000]


ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**90, 1e308, -1e-308, 0.5, "", " ", "@", "#",
    "@model",
    "@conf", "#1", "#@model.parameters()", "lambda x: x", "lambda x: x['loss']", "{epochs}", "{x}",
    "{{", "{", "}", "{MMAR_ROOT}/../x", "/etc/passwd", "/dev/zero", "../x", "a\0b", "\ud800",
    "\u202e",
    "os.system", "DiceLoss", "UNet", "LoadImaged", "SupervisedTrainer", "ref", "image", [], {},
    [[]],
    [None], {"": None}, {"name": "UNet"}, {"path": "os.system"}, {"ref": "load"}, {"name": 1},
    {"name": "Compose", "args": {"transforms": [{"name": "Compose", "args": {"transforms": []}}]}},
    {"ts_path": "x"}, {"ckpt_path": "x", "disabled": True}, "a" * 300, ["a"] * 50,
)  # fmt: skip


def changed_json(random: Random, document: Any, keys: Sequence[str]) -> Any:
    """A JSON document after one to five changes at random places."""
    document = json.loads(json.dumps(document))
    for _ in range(random.randint(1, 5)):
        places = list(_places(document))
        holder, key = random.choice(places)
        kind = random.randrange(7)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            other, at = random.choice(places)
            holder[key] = json.loads(json.dumps(other[at]))
        elif kind == 2 and isinstance(holder, dict):
            holder[random.choice(keys)] = holder.pop(key)
        elif kind == 3 and isinstance(holder, dict):
            holder[random.choice(keys)] = _odd_value(random)
        elif kind == 4 and isinstance(holder, list):
            holder.insert(random.randint(0, len(holder)), _odd_value(random))
        elif kind == 5 and isinstance(holder[key], str):
            holder[key] = changed_text(
                random, holder[key], COMMON, ("{epochs}", "#@model", "lambda")
            )
        else:
            holder[key] = _odd_value(random)
        if not document:
            return document
    return document


def _odd_value(random: Random) -> Any:
    found = random.choice(ODD_VALUES)
    return json.loads(json.dumps(found)) if isinstance(found, dict | list) else found


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    waiting = [document]
    while waiting:
        holder = waiting.pop()
        for key in holder if isinstance(holder, dict) else range(len(holder)):
            yield holder, key
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])


def changed_bytes(random: Random, data: bytes) -> bytes:
    """Bytes after one to eight changes."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 8)):
        at = random.randrange(max(1, len(changed)))
        kind = random.randrange(6)
        if kind == 0:
            del changed[at : at + random.choice((1, 4, 100))]
        elif kind == 1:
            changed[at:at] = random.randbytes(random.choice((1, 2, 4, 30)))
        elif kind == 2:
            changed[at : at + 1] = bytes([random.choice((0, 1, 0x7F, 0x80, 0xFF))])
        elif kind == 3:
            changed[at : at + 4] = struct.pack("<L", random.choice((0, 1, 2**31, 2**32 - 1)))
        elif kind == 4:
            found = list(_records(changed))
            if found:
                at = random.choice(found) + random.randrange(46)
                changed[at : at + 2] = random.randbytes(2)
        else:
            end = random.randrange(max(1, len(changed)))
            changed[at:at] = changed[end : end + 200]
    return bytes(changed)


def _records(data: bytearray) -> Iterator[int]:
    """Where the records of a zip begin."""
    for mark in (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"):
        at = data.find(mark)
        while at >= 0:
            yield at
            at = data.find(mark, at + 4)


# --- The targets ---------------------------------------------------------------------------------


class ExpressionTarget(Target):
    """Parse, and interpret what parses: over a config's objects, then over what engines hand in."""

    name = "expression"
    cost = 120

    TOKENS = (
        "#", "@model", "@conf", "@", "lambda x: ", "lambda engine: ", "x", "engine", "['loss']",
        "[0]",
        "[-1]", ".state", ".output", ".metrics", ".parameters()", "monai.handlers.from_engine(",
        "from_engine(", "['loss', 'pred']", "first=True", ")", "(", "[", "]", "{", "}", "f'{x",
        ":.4f}'",
        ":99", "print(", " if ", " else ", " and ", " or ", "not ", "==", "<", "+", "-", "*", "/",
        "//",
        "%", "**", "1", "0", "9223372036854775807", "1e308", "torch.float32", "np.uint8", "None",
        "True", "__class__", "__", ".", ",", ":", "'", '"', "\\", "\\n", "\\'", "lambda", ":=",
        "await ",
        "for x in ", "import os", "os.system('id')", "0x", "0b1", "1j", "b'", "r'", "'''",
        "reference__",
    )  # fmt: skip

    @cached_property
    def texts(self) -> list[str]:
        given = [text for _, text in expression.TEXTS.values()]
        return [*given, *benign.EXPRESSIONS.values(), *map(str, self.kept)]

    @cached_property
    def values(self) -> tuple[Any, ...]:
        import numpy as np
        import torch

        images = {
            "loss": torch.tensor(0.5),
            "pred": torch.zeros(2, 3),
            "label": torch.ones(3, 1),
            "a": 1,
            "name": "patient",
            "none": None,
            "array": np.zeros((2, 2)),
            "objects": np.array([None, "x"], object),
            "scalar": np.float64(0.25),
            "nan": math.nan,
            "many": list(range(100)),
            "big": 2**63 - 1,
            "meta": torch.empty(3, device="meta"),
            "half": torch.ones(2, dtype=torch.float16),
            "bool": torch.tensor([True, False]),
            "empty": torch.zeros(0),
            "complex": torch.tensor(1 + 2j),
            "sparse": torch.eye(2).to_sparse(),
            "nested": {"loss": {"a": [{}]}},
        }
        state = SimpleNamespace(
            **{field: 3 for field in STATE_FIELDS if field not in ("output", "batch", "metrics")},
            output=[images, images],
            batch=images,
            metrics={"val_mean_dice": 0.5},
        )
        str(images["meta"] > 2.5)  # torch imports more when it sees the first of these
        return (
            images, [images], SimpleNamespace(state=state), SimpleNamespace(state=None), None, 5,
            "x",
            [], {}, (), torch.tensor(3), torch.zeros(4, 4), np.int64(3), [1, [2, [3]]], math.inf,
        )  # fmt: skip

    @cached_property
    def objects(self) -> Callable[[str], object]:
        import torch

        built = {"model": torch.nn.Linear(1, 1), "loss": torch.nn.Module(), "conf": {"epochs": 1}}
        return lambda name: built.get(name, 5)

    @cached_property
    def interpret(self) -> Callable[..., Any]:
        from mmar_runtime.components.expressions import interpret, logger

        logger.propagate = False
        logger.setLevel(logging.INFO)
        logger.addHandler(logging.NullHandler())
        return interpret

    def make(self, random: Random) -> str:
        kind = random.randrange(4)
        if kind == 0:
            return changed_text(random, random.choice(self.texts), self.TOKENS, self.texts)
        if kind == 1:
            count = random.randint(1, 14)
            return random.choice(("#", "lambda x: ")) + "".join(
                random.choices(self.TOKENS, k=count)
            )
        body = self._sentence(random, random.randint(1, 5), inside := random.random() < 0.8)
        text = f"lambda x: {body}" if inside else f"#{body}"
        return text if kind == 2 else changed_text(random, text, self.TOKENS, self.texts)

    def _sentence(self, random: Random, depth: int, inside: bool) -> str:
        """An expression of the language, so that much of what is made can be interpreted."""
        more = lambda: self._sentence(random, depth - 1, inside)  # noqa: E731
        leaf = [
            "1",
            "0",
            "2.5",
            "'text'",
            "None",
            "True",
            "torch.float32",
            "9223372036854775807",
            "-3",
        ]
        keys = ["loss", "pred", "label", "a", "none", "array", "scalar", "nan", "many", "big",
        "meta",
                "half", "bool", "empty", "objects", "complex", "sparse", "nested",
                "name"]  # fmt: skip
        if inside:
            leaf += [
                "x",
                "x[0]",
                f"x['{random.choice(keys)}']",
                f"x[0]['{random.choice(keys)}']",
            ] * 3
            leaf += [f"x.state.{random.choice(STATE_FIELDS)}", "x.state.output[0]['loss']"]
        else:
            leaf += ["@model", f"@model.{random.choice(REFERENCE_METHODS)}()", "@conf", "@loss"]
        if depth <= 0:
            return random.choice(leaf)
        return random.choice(
            (
                lambda: f"({more()} {random.choice('+-*/%')} {more()})",
                lambda: f"({more()} // {more()})",
                lambda: f"({more()} {random.choice(('==', '!=', '<', '<=', '>', '>='))} {more()})",
                lambda: f"({more()} {random.choice(('and', 'or'))} {more()})",
                lambda: f"(not {more()})",
                lambda: f"({more()} if {more()} else {more()})",
                lambda: f"[{more()}, {more()}]",
                lambda: f"({more()},)",
                lambda: f"{{'k': {more()}, 1: {more()}}}",
                lambda: f'f"v {{{more()}}} {{{more()}:{random.choice(FORMATS)}}}"',
                lambda: f"print({more()}, {more()})",
                lambda: "from_engine(['pred', 'label'])",
                lambda: random.choice(leaf),
            )
        )()

    def run(self, given: str) -> None:
        try:
            tree = parse_expression(given)
        except ExpressionRefused:
            return
        try:
            found = self.interpret(tree, self.objects)
        except ComponentError:
            return
        if type(found).__name__ == "function" and found.__name__ == "interpreted_lambda":
            for argument in self.values:
                try:
                    found(argument)
                except ComponentError:
                    continue


class PossibleTarget(ExpressionTarget):
    """What is judged possible beforehand, against what an expression then comes to."""

    name = "possible"
    cost = 150

    WHOLE = 24
    """Numbers in each entry but the loss; a part of an entry has fewer."""

    @cached_property
    def outputs(self) -> tuple[Any, ...]:
        """What engines hand to a metric."""
        import torch

        entries = {key: torch.zeros(2, 3, 4) for key in ("image", "label", "pred", "a", "many")}
        output = {**entries, "loss": torch.tensor(0.5)}
        return output, [output, output]

    def run(self, given: str) -> None:
        try:
            tree = parse_expression(given)
        except ExpressionRefused:
            return
        possible = possible_of(tree)
        faults = {form: lambda_fault(tree, form) for form in LAMBDA_FORMS}
        try:
            found = self.interpret(tree, self.objects)
        except ComponentError:
            return
        if callable(found) and type(found).__name__ == "function":
            assert possible.others
            if isinstance(tree, Lambda) and not faults["metric_output"]:
                self._metric(found)
            return
        for leaf in _leaves_of(found):
            assert _is_possible(leaf, possible), (leaf, possible)

    def _metric(self, function: Callable[[object], object]) -> None:
        """Whole entries, or a loss."""
        for output in self.outputs:
            try:
                found = function(output)
            except ComponentError:
                continue
            for leaf in _leaves_of(found):
                assert leaf.numel() == self.WHOLE or leaf.ndim == 0, leaf.shape


def _leaves_of(found: Any) -> list[Any]:
    items = found.values() if isinstance(found, dict) else found
    if isinstance(found, dict | list | tuple):
        return [leaf for item in items for leaf in _leaves_of(item)]
    return [found]


def _is_possible(leaf: Any, possible: Possible) -> bool:
    if leaf is None:
        return True
    if isinstance(leaf, str):
        return possible.texts is None or leaf in possible.texts
    if isinstance(leaf, float) and math.isnan(leaf):
        return (possible.least, possible.most) == (-math.inf, math.inf)
    if isinstance(leaf, int | float):
        return possible.least <= leaf <= possible.most
    return possible.others


class SubstitutionTarget(Target):
    """Fill in variables; the result is never a construct, and never longer than the bound."""

    name = "substitution"
    cost = 12

    TOKENS = (
        "{", "}", "{{", "}}", "{V}", "{W}", "{N}", "{E}", "{R}", "{L}", "{unknown}", "{0}", "{}",
        "{V!r}",
        "{V:>9}", "{V.x}", "{V[0]}", "{$V}", "${V}", "@", "#", "lambda", "lambda ", "\\", "%", "%s",
    )  # fmt: skip
    VALUES: ClassVar[dict[str, Any]] = {"V": "value", "W": 3, "N": None, "E": "#1", "R": "@model",
    "L": "a" * 4000, "F": 0.5,
              "B": True, "T": " @", "H": "#", "A": "@", "LAM": "lambda", "DA": "da"}  # fmt: skip

    @cached_property
    def variables(self) -> dict[str, Variable]:
        return {name: Variable(value, PLACE) for name, value in self.VALUES.items()}

    @cached_property
    def texts(self) -> list[str]:
        names = [f"{{{name}}}" for name in self.VALUES]
        return [*(text for _, text, _ in substitution.VALUES.values()), *names, *self.kept]

    def make(self, random: Random) -> str:
        if random.random() < 0.5:
            count = random.randint(1, 10)
            return "".join(random.choices((*self.TOKENS, *self.texts[-15:], "x", " "), k=count))
        return changed_text(random, random.choice(self.texts), self.TOKENS, self.texts)

    def run(self, given: str) -> None:
        try:
            found = substitute(given, self.variables, PLACE)
        except SubstitutionError:
            return
        if isinstance(found, str) and (
            looks_like_construct(found) and not looks_like_construct(given)
        ):
            raise AssertionError(f"{given!r} became the construct {found!r}")
        if isinstance(found, str) and len(found) > max(MAX_LENGTH, len(given)):
            raise AssertionError(f"{len(found)} characters")


class DocumentTarget(Target):
    """JSON of strangers."""

    name = "document"
    cost = 60

    TOKENS = (
        "{", "}", "[", "]", '"', ":", ",", "null", "true", "NaN", "-Infinity", "1e999", "9" * 120,
        "0.",
        '"\\ud800"', '"\\u0000"', "\\", "//", "#", "include ", "'", "[" * 60, '{"a":' * 40, "1",
        "-", "e",
        "\ufeff", "\x00", '"__proto__"', '"a":1,"a":2', "E+", "0x1", "01", "+1", ".5",
    )  # fmt: skip

    @cached_property
    def texts(self) -> list[str]:
        files = [base_files("mmar")[name] for name in (ENVIRONMENT, TRAIN)]
        short = ['{"a": [1, 2.5, "x", null]}', '{"a": {"b": {"c": []}}}', "[]", '""', "0", "-0.0e0"]
        return [*short, *(file.decode()[:600] for file in files), *self.kept]

    def make(self, random: Random) -> str:
        if random.random() < 0.3:
            return "".join(random.choices(self.TOKENS, k=random.randint(1, 20)))
        return changed_text(random, random.choice(self.texts), self.TOKENS, self.texts)

    def run(self, given: str) -> None:
        try:
            parse_document(given, "config_train.json", WORKFLOW)
        except ConfigError:
            return


class FileTarget(Target):
    """A target that reads a file."""

    def written(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        )
        return path


class LogTarget(FileTarget):
    """``log.config``."""

    name = "log"
    cost = 300

    TOKENS = (
        "[loggers]", "[handlers]", "[handler_console]", "[formatter_line]", "[DEFAULT]", "keys=",
        "root",
        "class=", "args=", "(sys.stdout,)", "(", ")", "format=", "%(message)s", "%(asctime)s", "%(",
        "%%", "%", "{", "$", "style={", "level=", "handlers=", "=", ":", "\n", "\n ", ";", "#",
        "qualname=",
        "datefmt=", "%Y", "999", "*", "propagate=", "kwargs=", "%(levelno)d", "%(created)f",
        "%(thread)c",
    )  # fmt: skip

    @cached_property
    def texts(self) -> list[str]:
        found = [text for _, text in log_config.TEXTS.values() if isinstance(text, str)]
        return [log_config.SOUND] * 20 + [text for text in found if len(text) < 3000] + self.kept

    def make(self, random: Random) -> str:
        return changed_text(random, random.choice(self.texts), self.TOKENS, self.texts)

    def run(self, given: str) -> None:
        try:
            read_log_config(self.written("log.config", given))
        except ConfigError:
            return


class DataListTarget(FileTarget):
    """A data list: which items, which files."""

    name = "data_list"
    cost = 300

    KEYS = ("training", "validation", "image", "label", "mask", "fold", "")
    SOUND: ClassVar[dict[str, Any]] = {
        "name": "x",
        "training": [
            {"image": "a.nii.gz", "label": "b.nii.gz"},
            {"image": ["a.nii.gz", "c.nii.gz"], "label": [0, 1], "fold": 1},
            "a.nii.gz",
        ],
        "validation": [],
    }

    def make(self, random: Random) -> str:
        text = json.dumps(changed_json(random, self.SOUND, self.KEYS))
        if random.random() < 0.2:
            text = changed_text(random, text, DocumentTarget.TOKENS, (text,))
        return text

    def run(self, given: str) -> None:
        path = self.written("dataset.json", given)
        source = DataListSource(
            location=PLACE, file=str(path), base=str(self.folder), key="training"
        )
        for file_keys in (FILE_KEYS, ("image", "note")):
            try:
                read_data_list(source, file_keys=file_keys)
            except ConfigError:
                continue


class ImageTarget(FileTarget):
    """The header of an image: no accepted one names a file outside of the data."""

    name = "image"
    cost = 300

    NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 5 6\nencoding: raw\ndata file: in.raw\n"
    META = "ObjectType = Image\nNDims = 3\nDimSize = 4 5 6\nElementDataFile = in.raw\n"
    TOKENS = (
        "data file:", "datafile: ", "DATA FILE:", "ElementDataFile", " = ", ":", ":=", "LIST",
        "LIST 2", "LOCAL", "local", "\n", "\r\n", "\r", "\n\n", "../", "/", "in.raw", "../out.raw",
        "/etc/passwd", "%03d 1 9 1", "#", "\t", " ", "\0", "patch_index:=", "SKIPLIST", "~/", "$X",
    )  # fmt: skip
    NRRD_FIELD = re.compile(rb"[ \t]*data ?file[ \t]*:[ \t=]*([^\r\n]*)", re.I)
    META_FIELD = re.compile(rb"[ \t]*ElementDataFile[ \t]*[:=][ \t]*([^\r\n]*)", re.I)

    def make(self, random: Random) -> tuple[str, str]:
        suffix = random.choice((".nrrd", ".nhdr", ".mha", ".mhd", ".nii", ".png"))
        text = random.choice((self.NRRD, self.META))
        return suffix, changed_text(random, text, self.TOKENS, (self.NRRD, self.META))

    def run(self, given: tuple[str, str]) -> None:
        suffix, text = given
        self.written("in.raw", b"")
        path = self.written(f"image{suffix}", text)
        places = Places(root="/mmar", data=(os.path.realpath(self.folder),), reader_named=True)
        fault = places.fault(str(path.absolute()), "read:image")
        if fault or suffix not in (".nrrd", ".nhdr", ".mha", ".mhd"):
            return
        for line in path.read_bytes().split(b"\n"):
            field = self.NRRD_FIELD if suffix in (".nrrd", ".nhdr") else self.META_FIELD
            named = field.match(line)
            name = os.fsdecode(named[1].strip(b" \t")) if named is not None else ""
            place = os.path.realpath(os.path.join(self.folder, name.partition("\0")[0]))
            if name and Path(place).parent != Path(self.folder).resolve():
                raise AssertionError(f"{text!r} as {suffix} names {place!r}")


class WorkflowTarget(FileTarget):
    """A whole MMAR: its training, or its validation, with random changes."""

    name = "workflow"
    cost = 25_000

    @cached_property
    def keys(self) -> tuple[str, ...]:
        names = load_component_table()
        some = [name for kind in names.kinds for name in names.names(kind)[:20]]
        return (
            "name", "path", "args", "ref", "disabled", "rank", "log_label", "data_list_key", "keys",
            "ts_path", "ckpt_path", "train", "validate", "model", "loss", "handlers", "_target_",
            "transform", "transforms", "epochs", "amp", "MMAR_ROOT", "DATA_ROOT", "metrics",
            "search",
            "determinism", "network_summary", "pre_transforms", "", "\ud800", "a.b", *some,
        )  # fmt: skip

    @cached_property
    def documents(self) -> dict[str, list[Any]]:
        hostile = [case for case in component.HOSTILE if isinstance(case, Case)]
        trees = [json.loads(base_files(base)[TRAIN]) for base in ("mmar", "old")]
        trees += [json.loads(case.tree()[TRAIN]) for case in hostile[::7]]
        validation = [json.loads(base_files(base)[VALIDATION]) for base in ("mmar", "old")]
        environment = [json.loads(base_files("mmar")[ENVIRONMENT])]
        return {TRAIN: trees, VALIDATION: validation, ENVIRONMENT: environment}

    def make(self, random: Random) -> dict[str, Any]:
        files = {}
        for name, documents in self.documents.items():
            if name == VALIDATION and random.random() < 0.7:
                continue
            document = random.choice(documents)
            change = name != ENVIRONMENT or random.random() < 0.2
            files[name] = changed_json(random, document, self.keys) if change else document
        return files

    def run(self, given: dict[str, Any]) -> None:
        root = self.folder / "mmar"
        for name in (TRAIN, VALIDATION, ENVIRONMENT):
            (root / name).unlink(missing_ok=True)
        for name, document in given.items():
            self.written(f"mmar/{name}", json.dumps(document))
        _judged(check_mmar(root))


class ArchiveTarget(FileTarget):
    """The zip of a job, with changed bytes, or with changed documents inside."""

    name = "archive"
    cost = 15_000

    @cached_property
    def tree(self) -> dict[str, bytes]:
        kept = (
            "meta.json",
            archive.CLIENT,
            archive.SERVER,
            archive.APP_TRAIN,
            "app/" + ENVIRONMENT,
        )
        return {name: base_files("job")[name] for name in kept}

    @cached_property
    def zips(self) -> list[bytes]:
        import zipfile

        small = {**self.tree, archive.APP_TRAIN: b"{}"}
        return [archive.zipped(self.tree), archive.zipped(small, zipfile.ZIP_STORED)]

    def make(self, random: Random) -> bytes:
        if random.random() < 0.7:
            return changed_bytes(random, random.choice(self.zips))
        name = random.choice(("meta.json", archive.CLIENT, archive.SERVER))
        keys = ("name", "path", "args", "deploy_map", "app", "min_clients", "num_rounds", "{x}",
        "id",
                "executors", "components", "local_epochs", "class_path")  # fmt: skip
        document = changed_json(random, json.loads(self.tree[name]), keys)
        return archive.zipped({**self.tree, name: json.dumps(document).encode()})

    def run(self, given: bytes) -> None:
        _judged(check_job(self.written("job.zip", given)))

    def decoded(self, kept: Any) -> Any:
        return kept.encode("latin-1")

    def encoded(self, given: Any) -> Any:
        return given.decode("latin-1")


def _judged(verdict: Verdict) -> None:
    """A verdict that says the check itself failed is a fault, though it lets nothing pass."""
    for problem in verdict.problems:
        if problem.rule == "check":
            raise AssertionError(f"{problem}")
    json.dumps(verdict.as_dict()).encode()


class UpdateTarget(Target):
    """A contribution: which changes of the corpus, and which arrays, decides a number."""

    name = "update"
    cost = 400

    @cached_property
    def changes(self) -> list[update.Change]:
        heavy = (
            "many", "long-name", "many-keys", "wide", "long-text", "deep", "claims-much",
            "claims-much-axes",  # which the next change might take at their word
        )  # fmt: skip
        pairs = {**update.UPDATES, **update.METADATA, **update.BENIGN_CHANGES}
        return [
            change for id_, (_, change) in pairs.items() if change is not None and id_ not in heavy
        ]

    def make(self, random: Random) -> int:
        return random.getrandbits(48)

    def run(self, given: int) -> None:
        from fl_server.update_guard import Expected, UpdateLimits, check_update

        random = Random(given)
        sent: Any = update.sound()
        about: Any = update.metadata()
        marker = self.folder / "marker"
        for change in random.sample(self.changes, random.randint(0, 3)):
            try:
                change(sent, about, marker)
            except (TypeError, AttributeError, KeyError, ValueError, IndexError, OverflowError):
                continue  # the change before has left nothing for this one to change
        for _ in range(random.randint(0, 2)):
            sent[random.choice(list(sent) or ["x"])] = _odd_array(random)
        if random.random() < 0.5:
            _odd_metadata(random, about)
        kind = random.choice(("WEIGHT_DIFF", "WEIGHT_DIFF", "WEIGHTS", "METRICS"))
        if kind == "METRICS" and type(about) is dict and type(about.get("report")) is dict:
            sent = about["report"].get("local_metrics")
        expected = Expected(
            site="site-1",
            job="job-1",
            kind=kind,
            model=update.model(),
            key_metric=random.choice((None, "val_mean_dice")),
            directions=random.choice(({}, {"val_mean_dice": True})),
            round=random.choice((None, update.ROUND)),
            base_model=random.choice((None, update.DIGEST)),
        )
        limits = UpdateLimits(
            max_bytes=random.choice((None, 100, 10_000)),
            max_norm=random.choice((None, 1.0)),
            norm_ratio=random.choice((None, 3.0)),
        )
        marker.unlink(missing_ok=True)
        faults = check_update(sent, about, expected, limits)
        if marker.exists():
            raise AssertionError("a method of what was sent was called")
        for fault in faults:
            if fault.rule == "unreadable":
                raise AssertionError(str(fault))
            if not str(fault).isprintable():
                raise AssertionError(f"not printable: {fault!r}")


def _odd_array(random: Random) -> Any:
    import numpy as np

    dtype = random.choice(
        (
            "f4",
            "f8",
            "f2",
            ">f4",
            "i8",
            "i1",
            "u8",
            "?",
            "c8",
            "O",
            "U3",
            "S2",
            "V3",
            "M8[s]",
            "m8[s]",
        )
    )
    shape = random.choice(((), (4,), (4, 1, 3), (0,), (1,), (3, 0), (2, 2, 2, 2)))
    made = np.zeros(shape, dtype)
    if dtype in ("f4", "f8", "f2", ">f4", "i8") and made.size:
        number = random.choice((0, 1, -1, 3e38, math.nan, math.inf, -math.inf, 1e-45))
        with np.errstate(all="ignore"):
            made = made + np.float32(number) if dtype != "i8" else made + (2**62)
            made = made.astype(dtype)
    return made[..., ::-1] if made.ndim and random.random() < 0.2 else made


def _objects_in(tree: dict[Any, Any]) -> list[dict[Any, Any]]:
    """An object and all that are inside of it, each once."""
    found, seen = [tree], {id(tree)}
    for one in found:
        for inner in one.values():
            if type(inner) is dict and id(inner) not in seen:
                seen.add(id(inner))
                found.append(inner)
    return found


def _odd_metadata(random: Random, about: Any) -> None:
    if type(about) is not dict:
        return
    holder = random.choice(_objects_in(about))
    keys = [key for key in holder if type(key) is str] or ["x"]
    values = (
        *ODD_VALUES,
        math.nan,
        math.inf,
        -(2**63),
        10**5000,
        b"x",
        (),
        frozenset(),
        1j,
        object(),
    )
    holder[random.choice((*keys, "x", "steps", "round"))] = random.choice(values)


TARGETS: tuple[type[Target], ...] = (
    ExpressionTarget,
    PossibleTarget,
    SubstitutionTarget,
    DocumentTarget,
    LogTarget,
    DataListTarget,
    ImageTarget,
    UpdateTarget,
    WorkflowTarget,
    ArchiveTarget,
)


def digest(given: Any) -> str:
    """A short name for an input."""
    return f"{zlib.crc32(repr(given).encode('utf-8', 'surrogatepass')):08x}"

"""The check of a ``custom`` folder before a site can approve it: text that a person has read.

An approval covers the text that the reader saw, so nothing may hide in a file that cannot be read.
No module may take the place of a module that the site's own programs import.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path

from mmar_runtime.config.location import Location
from mmar_runtime.errors import Problem
from mmar_runtime.policy.files.tree_hash import SIGNATURE_FILES, tree_files, tree_hash

MAX_FILES = 500
MAX_BYTES = 4 * 2**20
"""Of all files together; nobody reads more."""

MAX_MODULE_BYTES = 2**19
"""Of a file in which a job names a class; it is parsed before it is imported."""

PACKAGES = ("site-packages", "dist-packages")

NOT_TEXT = (".pyc", ".pyo", ".pyd", ".so", ".dll", ".dylib", ".pth", ".zip", ".egg", ".whl")
"""Files that Python imports from or acts upon without anybody having read them."""

AT_THE_START = ("__main__", "sitecustomize", "usercustomize")
"""Modules that each Python process has by itself."""


def code_hash(custom: Path) -> str:
    """Return the hash that a site approves a ``custom`` folder by, signed or not.

    Raises:
        ConfigError: there is no such folder, or it holds a link or a device.
    """
    return tree_hash(custom, leave_out=SIGNATURE_FILES)


def custom_faults(custom: Path) -> Iterator[Problem]:
    """Yield the reasons why nobody could approve a ``custom`` folder; import nothing of it.

    Raises:
        ConfigError: there is no such folder, or it holds a link or a device.
    """
    files = tree_files(custom, leave_out=SIGNATURE_FILES)
    size = sum(path.stat().st_size for path in files)
    if not files:
        yield _fault("", "holds no file")
    if len(files) > MAX_FILES or size > MAX_BYTES:
        yield _fault("", f"holds {len(files)} files of {size} bytes, too much to be read")
        return
    for path in files:
        name = path.relative_to(custom).as_posix()
        try:
            readable = "\0" not in path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            readable = False
        if path.suffix.lower() in NOT_TEXT or not readable:
            yield _fault(name, "is not a text that people can read", "Remove it; see __pycache__.")
    for module in sorted({path.relative_to(custom).parts[0].removesuffix(".py") for path in files}):
        if fault := own_class_fault(module, custom):
            yield _fault(module, fault, "Rename it.")


def own_module(path: str, custom: Path) -> Path | None:
    """Return the file of a job's own code that the path of a class names: ``package.module.Class``.

    Returns:
        The file; None if ``custom`` holds no such module.
    """
    names = path.split(".")[:-1]
    if not names or not all(name.isidentifier() for name in path.split(".")):
        return None
    place = custom.joinpath(*names)
    # As Python looks: a package goes before a module of the same name.
    for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
        # Not Path.is_file, which raises where a name is too long.
        if os.path.isfile(file) and not os.path.islink(file):
            return file
    return None


def own_class_fault(path: str, custom: Path) -> str:
    """Return why Python would not, or may not, find a job's own class; empty if it would.

    Args:
        path: of the class; its module is a file of ``custom``.
        custom: the job's folder of code.
    """
    module = path.partition(".")[0]
    if module in AT_THE_START or module in sys.stdlib_module_names:
        return "has the name of a module of Python itself"
    if _is_installed(module, custom):
        return "has the name of a module that is installed here"
    return ""


def undefined_fault(path: str, custom: Path, *, functions: bool = False) -> str:
    """Return why a path names nothing that its file of ``custom`` defines itself; empty if it does.

    An approval of code covers imports for the code's own use, not for a job that calls them with
    arguments that nobody has read.

    Args:
        path: such as ``package.module.Class``.
        custom: the job's folder of code.
        functions: whether a function will do as well as a class.
    """
    file, name = own_module(path, custom), path.rpartition(".")[2]
    if file is None:
        return "names no module in custom/"
    shown = f"custom/{file.relative_to(custom).as_posix()}"
    if file.stat().st_size > MAX_MODULE_BYTES:
        return f"is in {shown}, which has more than {MAX_MODULE_BYTES} bytes"
    try:
        classes, defined = _definitions(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"is in {shown}, which is not Python that can be parsed: {type(error).__name__}"
    if name in classes or (functions and name in defined):
        return ""
    kinds = "class or function" if functions else "class"
    return f"is not a {kinds} that {shown} defines itself; name the file where it is defined"


@lru_cache(maxsize=32)
def _definitions(text: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """Return the classes, and the functions, that a module defines at its top level.

    A name that is imported or assigned there as well may mean another object in the end.
    """
    body = ast.parse(text).body
    others = [other for other in body if not isinstance(other, ast.ClassDef | ast.FunctionDef)]
    bound = set()  # every name that a statement could bind, at any depth
    for node in (node for statement in others for node in ast.walk(statement)):
        if isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
    classes = {statement.name for statement in body if isinstance(statement, ast.ClassDef)}
    functions = {statement.name for statement in body if isinstance(statement, ast.FunctionDef)}
    return frozenset(classes - functions - bound), frozenset(functions - classes - bound)


def _fault(name: str, message: str, advice: str = "") -> Problem:
    return Problem(Location(f"custom/{name}".rstrip("/")), message, advice, "code")


def _is_installed(name: str, custom: Path) -> bool:
    """Return whether a module of this name exists outside of MMARs, without importing it."""
    if not name.isidentifier():
        return False
    root = Path(os.path.realpath(custom))
    outside = [folder for folder in sys.path if not _is_code_of_an_mmar(folder or os.curdir, root)]
    specs = [PathFinder.find_spec(name, outside)]
    # A package that is installed for editing has a finder of its own.
    others = [finder for finder in sys.meta_path if finder is not PathFinder]
    specs += [finder.find_spec(name, None) for finder in others]
    places: list[str] = []
    for spec in specs:
        if spec is not None and spec.origin is not None:
            places.append(spec.origin)
        elif spec is not None and name != "__pycache__":
            # A folder without __init__.py, such as that of google.protobuf. It gives way to any
            # module; elsewhere than among installed packages it is not meant for an import.
            folders = spec.submodule_search_locations or ()
            places += [folder for folder in folders if Path(folder).parent.name in PACKAGES]
    return any(not _is_code_of_an_mmar(place, root) for place in places)


def _is_code_of_an_mmar(path: str, root: Path) -> bool:
    """Return whether a path is below this folder, or below that of another MMAR of this process."""
    place = Path(os.path.realpath(path))
    return any(
        folder == root or (folder.name == "custom" and (folder.parent / "config").is_dir())
        for folder in (place, *place.parents)
    )

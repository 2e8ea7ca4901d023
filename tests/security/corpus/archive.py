"""Jobs and their zips: names that lead elsewhere, bombs, and configs that NVFlare would read."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.security.case import Case, Fifo, Link, Tree

RULES = ("archive", "job-file", "code", "json", "limit", "allow-list", "path", "missing-file",
         "check", "mmar")  # fmt: skip

CLIENT = "app/config/config_fed_client.json"
SERVER = "app/config/config_fed_server.json"
APP_TRAIN = "app/config/config_train.json"


def zipped(tree: Tree, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return stream.getvalue()


def with_entry(
    name: str,
    content: bytes | Callable[[], bytes] = b"{}",
    *,
    mode: int = 0o100644,
    compression: int = zipfile.ZIP_DEFLATED,
) -> Callable[[Tree, Path], None]:
    """The job's zip with one entry more."""

    def pack(tree: Tree, path: Path) -> None:
        stream = io.BytesIO(zipped(tree))
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        info.compress_type = compression
        with zipfile.ZipFile(stream, "a") as archive:
            archive.writestr(info, content() if callable(content) else content)
        path.write_bytes(stream.getvalue())

    return pack


def altered(change: Callable[[bytes], bytes]) -> Callable[[Tree, Path], None]:
    """The job's zip with its bytes changed."""
    return lambda tree, path: path.write_bytes(change(zipped(tree))) and None


def twice(tree: Tree, path: Path) -> None:
    stream = io.BytesIO(zipped(tree))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.fp.seek(0, 2) if archive.fp else None
        info = zipfile.ZipInfo(CLIENT.upper())
        archive.writestr(info, b"{}")
    path.write_bytes(stream.getvalue())


def _renamed(old: bytes, new: bytes, *, first: bool) -> Callable[[bytes], bytes]:
    """A name changed in the local header alone, or in the table of contents alone."""

    def change(data: bytes) -> bytes:
        at = data.find(old) if first else data.rfind(old)
        return data[:at] + new + data[at + len(old) :]

    return change


def _smaller_size(data: bytes) -> bytes:
    """The table of contents with a file that claims to unpack to ten bytes."""
    at = data.find(b"PK\x01\x02")
    return data[: at + 24] + struct.pack("<L", 10) + data[at + 28 :]


def _larger_size(data: bytes) -> bytes:
    at = data.find(b"PK\x01\x02")
    return data[: at + 24] + struct.pack("<L", 2**32 - 2) + data[at + 28 :]


def _encrypted(data: bytes) -> bytes:
    at = data.find(b"PK\x01\x02")
    return data[: at + 8] + struct.pack("<H", 1) + data[at + 10 :]


def _overlapping(data: bytes) -> bytes:
    """Two entries of the table that point to the same bytes."""
    first = data.find(b"PK\x01\x02")
    second = data.find(b"PK\x01\x02", first + 4)
    offset = data[first + 42 : first + 46]
    return data[: second + 42] + offset + data[second + 46 :]


def _bad_checksum(data: bytes) -> bytes:
    at = data.find(b"PK\x01\x02")
    return data[: at + 16] + b"\0\0\0\0" + data[at + 20 :]


def _other_method(data: bytes) -> bytes:
    at = data.find(b"PK\x01\x02")
    return data[: at + 10] + struct.pack("<H", 99) + data[at + 12 :]


def _zip64(data: bytes) -> bytes:
    end = data.rfind(b"PK\x05\x06")
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, 0, 1)
    return data[:end] + locator + data[end:]


def _count(count: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        end = data.rfind(b"PK\x05\x06")
        return data[: end + 8] + struct.pack("<HH", count, count) + data[end + 12 :]

    return change


def _two_tables(data: bytes) -> bytes:
    """A second archive behind the first one; readers differ in which one they see."""
    return data + zipped({"meta.json": b"{}"})


def _bomb(data: bytes) -> bytes:
    """A flat bomb: 16 MB of zeros in 16 kB, a hundred times."""
    del data
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(20):
            archive.writestr(f"app/config/x{index}.json", b"\0" * 2**22)
    return stream.getvalue()


def _quoted_bomb(data: bytes) -> bytes:
    """Many entries over one kernel of packed bytes."""
    kernel = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = kernel.compress(b"\0" * 2**20) + kernel.flush()
    names = [f"app/config/{index:04}.json".encode() for index in range(1500)]
    check = zlib.crc32(b"\0" * 2**20)
    fields = (20, 0, 8, 0, 0, check, len(packed), 2**20)
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", *fields, len(names[0]), 0) + names[0] + packed
    table = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, *fields, len(name), 0, 0, 0, 0, 0, 0) + name
        for name in names
    )
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1500, 1500, len(table), len(local), 0)
    return local + table + end


def _many(data: bytes) -> bytes:
    stream = io.BytesIO(data)
    with zipfile.ZipFile(stream, "a") as archive:
        for index in range(5000):
            archive.writestr(f"app/docs/{index}.md", b"")
    return stream.getvalue()


def _zeros() -> bytes:
    return b"\0" * (64 * 2**20)


ENTRIES: dict[str, tuple[str, Callable[[Tree, Path], None]]] = {
    "slip": ("a name that leads up", with_entry("../../local/authorization.json")),
    "slip-inside": ("a name that leads up from inside", with_entry("app/config/../../../x.json")),
    "absolute": ("an absolute name", with_entry("/etc/cron.d/x")),
    "windows-slip": ("a name that leads up in Windows", with_entry("..\\..\\x.json")),
    "drive": ("a drive of Windows", with_entry("C:/x.json")),
    "dot-name": ("a name with a dot", with_entry("./app/config/x.json")),
    "double-slash": ("a name with two slashes", with_entry("app//config/x.json")),
    "empty-name": ("no name", with_entry(" ")),
    "long-name": ("a name of 60,000 letters", with_entry("app/docs/" + "a" * 60_000 + ".md")),
    "deep-name": ("a name of 100 folders", with_entry("app/" + "a/" * 100 + "x.md")),
    "newline-name": ("a line break in a name", with_entry("app/docs/a\nb.md")),
    "escape-name": ("a sign that moves the cursor", with_entry("app/docs/\x1b[2J.md")),
    "bidi-name": ("a name that runs the other way", with_entry("app/docs/\u202egnp.md")),
    "home-name": ("a home", with_entry("~root/x")),
    "stream-name": ("a stream of Windows", with_entry("app/docs/a.md:x")),
    "link": ("a link", with_entry("app/docs/a.md", b"/etc/passwd", mode=0o120777)),
    "link-folder": ("a link to a folder", with_entry("app/eval", b"/etc", mode=0o120777)),
    "device": ("a device", with_entry("app/docs/a.md", b"", mode=0o020666)),
    "pipe": ("a pipe", with_entry("app/docs/a.md", b"", mode=0o010666)),
    "lzma": ("another way to pack", with_entry("app/docs/a.md", b"x",
    compression=zipfile.ZIP_LZMA)),
    "bzip2": ("another way to pack", with_entry("app/docs/a.md", compression=zipfile.ZIP_BZIP2)),
    "ratio": ("64 MB of zeros in 64 kB", with_entry("app/docs/a.md", _zeros)),
    "ratio-models": ("the same as weights", with_entry("app/models/model.pt", _zeros)),
    "file-and-folder": ("a file that is a folder as well", with_entry("app/config", b"x")),
    "case-twin": ("a name twice but for its case", twice),
    "hidden-code": ("code in a folder of configs", with_entry("app/config/evil.py", b"x=1")),
    "code": ("code in custom", with_entry("app/custom/evil.py", b"open('MARKER', 'w')")),
    "code-text": ("a text in custom, which turns NVFlare's list off",
                  with_entry("app/custom/readme.txt", b"x")),
    "library": ("a native library", with_entry("app/models/evil.so", b"\x7fELF")),
    "pth": ("a file that Python runs at its start", with_entry("app/custom/x.pth", b"import os")),
    "second-meta": ("another meta.json", with_entry("app/meta.json")),
    "hocon": ("NVFlare's config as HOCON",
              with_entry("app/config/config_fed_client.conf", b'include file("SECRET")')),
    "yaml": ("NVFlare's config as YAML", with_entry("app/config/config_fed_client.yml", b"a: 1")),
    "meta-hocon": ("the metadata as HOCON", with_entry("meta.conf", b'include file("SECRET")')),
    "json-default": ("NVFlare's config as a default",
                     with_entry("app/config/config_fed_client.json.default")),
    "config-below": ("a further config in a folder",
                     with_entry("app/config/a/config_fed_client.json")),
    "config-in-models": ("a further config among the weights",
                         with_entry("app/models/config_fed_client.json")),
    "config-in-resources": ("a further config among the resources",
                            with_entry("app/resources/config_fed_server.json")),
    "log-config-json": ("NVFlare's own log config",
                        with_entry("app/config/log_config.json.default")),
    "local": ("a file of the site's folder", with_entry("local/authorization.json")),
    "startup": ("a file of the startup kit", with_entry("startup/fed_client.json")),
}  # fmt: skip

BYTES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "not-a-zip": ("no zip", lambda data: b"x" * 1000),
    "empty": ("nothing", lambda data: b""),
    "empty-zip": ("a zip of nothing", lambda data: zipped({})),
    "truncated": ("half a zip", lambda data: data[: len(data) // 2]),
    "prepended": ("a program before it", lambda data: b"#!/bin/sh\n" + data),
    "appended": ("bytes behind it", lambda data: data + b"x"),
    "comment": ("a comment", lambda data: data[:-2] + struct.pack("<H", 5) + b"abcde"),
    "two-tables": ("two tables of contents", _two_tables),
    "local-name": ("another name in the file's own header",
                   _renamed(b"meta.json", b"evil.json", first=True)),
    "table-name": ("another name in the table",
                   _renamed(b"meta.json", b"m\0ta.json", first=False)),
    "smaller-size": ("a size that is too small", _smaller_size),
    "larger-size": ("a size of 4 GB", _larger_size),
    "encrypted": ("an encrypted file", _encrypted),
    "overlapping": ("two files over the same bytes", _overlapping),
    "checksum": ("a checksum that is wrong", _bad_checksum),
    "method": ("a way to pack that is none", _other_method),
    "zip64": ("an extension that others read first", _zip64),
    "count-zero": ("a table of no entries", _count(0)),
    "count-most": ("a table of 65,535 entries", _count(65_535)),
    "bomb": ("a flat bomb", _bomb),
    "quoted-bomb": ("a bomb of entries over the same bytes", _quoted_bomb),
    "many": ("5,000 files", _many),
    "tar": ("another archive", lambda data: b"\0" * 257 + b"ustar\0" + b"\0" * 1000),
    "gzip": ("another archive", lambda data: b"\x1f\x8b\x08" + data),
}  # fmt: skip

POPEN = {"path": "subprocess.Popen", "args": {"args": ["touch", "MARKER"]}}

CONFIGS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "component": ("a class outside of the list",
                  {CLIENT: {"components/-": {"id": "x", **POPEN}}}),
    "executor": ("an executor outside of the list",
                 {CLIENT: {"executors/0/executor": {"id": "x", **POPEN}}}),
    "nested": ("a class inside an argument",
               {CLIENT: {"executors/0/executor/args/x": POPEN}}),
    "nested-dict": ("the same as a plain object",
                    {CLIENT: {"executors/0/executor/args/x": {**POPEN, "config_type": "dict"}}}),
    "filter": ("a filter of the job", {CLIENT: {"task_result_filters/-": {
        "tasks": ["*"], "filters": [{"path": "nvflare.app_common.filters.SVTPrivacy"}]}}}),
    "by-name": ("a class by its name", {CLIENT: {"components/-": {"id": "x", "name": "Popen"}}}),
    "class-path": ("a class by the other key",
                   {CLIENT: {"components/-": {"id": "x", "class_path": "subprocess.Popen"}}}),
    "prefix": ("a name that begins as an allowed one",
               {CLIENT: {"executors/0/executor/path": "fl_client.flare.executor.MmarExecutor.x"}}),
    "newline": ("an allowed name and a line break",
                {CLIENT: {"executors/0/executor/path": "fl_client.flare.executor.MmarExecutor\n"}}),
    "script-runner": ("a program of the job", {CLIENT: {"executors/0/executor": {
        "path": "nvflare.app_opt.pt.in_process_client_api_executor.PTInProcessClientAPIExecutor",
        "args": {"task_script_path": "evil.py"}}}}),
    "server-component": ("a class at the server", {SERVER: {"components/-": {"id": "x", **POPEN}}}),
    "workflow": ("a workflow of its own", {SERVER: {"workflows/-": {"id": "x", **POPEN}}}),
    "environment": ("the site's environment",
                    {CLIENT: {"executors/0/executor/args/x": "{$MMAR_CANARY}"}}),
    "environment-key": ("the same in a key",
                        {CLIENT: {"executors/0/executor/args/{$HOME}": 1}}),
    "hocon-value": ("HOCON's substitution", {CLIENT: {"x": "${MMAR_CANARY}"}}),
    "secret-reference": ("NVFlare's own secrets", {CLIENT: {"x": "${secret:db_password}"}}),
    "workspace": ("the site's folder",
                  {CLIENT: {"executors/0/executor/args/x": "{WORKSPACE}"}}),
    "site-name": ("the site's addresses", {CLIENT: {"executors/0/executor/args/x": "{ROOT_URL}"}}),
    "format-walk": ("a walk inside format",
                    {CLIENT: {"executors/0/executor/args/x": "{local_epochs.__class__}"}}),
    "format-width": ("a width bomb inside format",
                     {CLIENT: {"executors/0/executor/args/x": "{local_epochs:>99999999999}"}}),
    "format-nested": ("a width from a value",
                      {CLIENT: {"executors/0/executor/args/x": "a{local_epochs:{local_epochs}}"}}),
    "format-macro": ("NVFlare's macros",
                     {CLIENT: {"executors/0/executor/args/x": "{@executors:x=1}"}}),
    "rounds": ("a million rounds", {SERVER: {"num_rounds": 10**6}}),
    "rounds-text": ("rounds as a text", {SERVER: {"num_rounds": "3"}}),
    "rounds-negative": ("rounds below one", {SERVER: {"num_rounds": -1}}),
    "epochs": ("a million epochs", {CLIENT: {"local_epochs": 10**6}}),
    "epochs-inside": ("the same where it is used",
                      {CLIENT: {"executors/0/executor/args/local_epochs": 10**6}}),
    "epochs-float": ("epochs that are no number",
                     {CLIENT: {"executors/0/executor/args/local_epochs": 1.5}}),
    "mmar-component": ("a hostile class in the MMAR of the job",
                       {APP_TRAIN: {"train/loss": {"path": "subprocess.Popen", "args": {}}}}),
    "mmar-expression": ("a hostile expression in the MMAR of the job",
                        {APP_TRAIN: {"train/loss/args/weight": "#open('MARKER', 'w')"}}),
}  # fmt: skip

FOLDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "folder-link": ("a link in the job", {"app/docs/a.md": Link("SECRET")}),
    "folder-link-app": ("a config that is a link", {APP_TRAIN: Link("SECRET")}),
    "folder-pipe": ("a pipe in the job", {"app/docs/a.md": Fifo()}),
    "folder-code": ("code beside the configs", {"app/config/evil.py": "open('MARKER', 'w')"}),
    "folder-custom": ("code", {"app/custom/evil.py": "open('MARKER', 'w')"}),
    "folder-pyc": ("compiled code", {"app/models/__pycache__/x.cpython-311.pyc": b"\0"}),
    "folder-egg": ("a package", {"app/models/x.egg": b"PK"}),
    "folder-newline": ("a line break in a name", {"app/docs/a\nb.md": "x"}),
    "folder-backslash": ("a name of Windows", {"app/docs/..\\..\\x.md": "x"}),
    "folder-hocon": (
        "NVFlare's config as HOCON",
        {"app/config/config_fed_server.conf": 'include file("SECRET")'},
    ),
    "folder-deep": ("a config in a folder", {"app/config/a/b/config_train.json": "{}"}),
    "folder-meta-link": ("metadata that are a link", {"meta.json": Link("SECRET")}),
    "folder-config-nan": ("a number that is none", {CLIENT: '{"local_epochs": NaN}'}),
    "folder-config-twice": ("a key twice", {CLIENT: '{"executors": [], "executors": [1]}'}),
    "folder-config-hocon": ("HOCON in a JSON file", {CLIENT: 'include file("SECRET")'}),
    "folder-config-array": ("an array as a config", {CLIENT: "[]"}),
    "folder-two-apps": ("two apps", {"app2/config/config_fed_client.json": "{}"}),
}

LENDING = "from subprocess import run\nclass Half: pass\n"
LENT = {"path": "helpers.run", "args": {"args": ["touch", "MARKER"]}}
LINE = f"{sha256(LENDING.encode()).hexdigest()} 10 helpers.py\n"
HASH = sha256(LINE.encode()).hexdigest()
APPROVED = {"policy_version": 1, "byoc": {"mode": "by_hash", "approved": [HASH]}}
LENDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "lent-client": ("what approved code imports, of NVFlare",
                    {CLIENT: {"components/-": {"id": "x", **LENT}}}),
    "lent-handler": ("what approved code imports, as a handler",
                     {APP_TRAIN: {"train/handlers/-": LENT}}),
}  # fmt: skip

HOSTILE: tuple[Case, ...] = (
    *(
        Case(id=id_, family="archive", tries=tries, rules=RULES, base="job", pack=pack)
        for id_, (tries, pack) in ENTRIES.items()
    ),
    *(
        Case(id=f"zip-{id_}", family="archive", tries=tries, rules=RULES, base="job",
             pack=altered(change))
        for id_, (tries, change) in BYTES.items()
    ),
    *(
        Case(id=f"config-{id_}", family="archive", tries=tries,
             rules=(*RULES, "expression"), base="job", edits=edits)
        for id_, (tries, edits) in CONFIGS.items()
    ),
    *(
        Case(id=id_, family="archive", tries=tries, rules=RULES, base="job", files=files)
        for id_, (tries, files) in FOLDERS.items()
    ),
    *(
        Case(id=id_, family="archive", tries=tries, rules=("code",), base="job", edits=edits,
             files={"app/custom/helpers.py": LENDING}, policy=APPROVED)
        for id_, (tries, edits) in LENDERS.items()
    ),
)  # fmt: skip

META: dict[str, tuple[str, dict[str, Any]]] = {
    "name-path": ("a name that is a path", {"name": "../../x"}),
    "name-newline": ("a name of two lines", {"name": "a\nINFO all is well"}),
    "name-escape": ("a name that moves the cursor", {"name": "\x1b[2J"}),
    "name-formula": ("a name that a spreadsheet computes", {"name": '=cmd|"/c calc"!A1'}),
    "name-long": ("a name of 4,000 letters", {"name": "a" * 4000}),
    "name-object": ("an object as a name", {"name": {"path": "os.system"}}),
    "name-number": ("a number as a name", {"name": 1}),
    "byoc-claim": ("its own word that it brings no code", {"byoc": False}),
    "scope": ("a scope of privacy of its own choice", {"scope": "public"}),
    "launcher": ("a launcher", {"launcher_spec": {"docker": {"image": "evil"}}}),
    "submitter": ("another submitter", {"submitter_name": "admin@site"}),
    "app-up": ("an app outside of the job", {"deploy_map": {"../x": ["@ALL"]}}),
    "app-absolute": ("an absolute app", {"deploy_map": {"/etc": ["@ALL"]}}),
    "app-dot": ("the job itself as an app", {"deploy_map": {".": ["@ALL"]}}),
    "app-empty": ("no name of an app", {"deploy_map": {"": ["@ALL"]}}),
    "app-two": ("two apps", {"deploy_map": {"app": ["a"], "app2": ["b"]}}),
    "app-none": ("no app", {"deploy_map": {}}),
    "app-list": ("an array of apps", {"deploy_map": ["app"]}),
    "site-path": ("a site that is a path", {"deploy_map": {"app": ["../../x"]}}),
    "site-object": ("a site that is an object", {"deploy_map": {"app": [{"sites": ["a"]}]}}),
    "site-newline": ("a site of two lines", {"deploy_map": {"app": ["a\nb"]}}),
    "site-text": ("sites as a text", {"deploy_map": {"app": "@ALL"}}),
    "clients-negative": ("fewer than no sites", {"min_clients": -1}),
    "clients-text": ("a text as a number", {"min_clients": "3"}),
    "mandatory-text": ("sites as a text", {"mandatory_clients": "a"}),
    "mandatory-path": ("a site that is a path", {"mandatory_clients": ["../a"]}),
    "resources-text": ("resources as a text", {"resource_spec": "x"}),
    "resources-deep": ("resources of 40 levels", {
        "resource_spec": json.loads('{"a":' * 40 + "1" + "}" * 40)}),
    "environment": ("the site's environment", {"name": "{$MMAR_CANARY}"}),
    "environment-key": ("the same in a key", {"resource_spec": {"${HOME}": 1}}),
}  # fmt: skip

META_CASES: tuple[Case, ...] = tuple(
    Case(id=f"job-{id_}", family="metadata", tries=tries, rules=(*RULES, "type"), base="job",
         edits={"meta.json": changes})
    for id_, (tries, changes) in META.items()
)  # fmt: skip

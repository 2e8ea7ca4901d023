"""A job folder: ``meta.json`` and the app folders that it deploys, each of which is an MMAR."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_client.jobs.meta import ALL_SITES, META_FORMS
from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG, SERVER_CONFIG, JobDocuments
from mmar_runtime.files import write_json
from mmar_runtime.mmar import Mmar


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A submit-ready job.

    Attributes:
        folder: the folder that holds ``meta.json``.
        name: the job's name.
        mmar: the app that every site gets.
    """

    folder: Path
    name: str
    mmar: Mmar

    @classmethod
    def open(cls, folder: str | Path) -> Job:
        """Return the job in a folder.

        Raises:
            ConfigError: no ``meta.json``, not exactly one app, or a config of the app is missing.
        """
        root = Path(folder).expanduser().resolve()
        if not root.is_dir():
            what = "is not a folder" if root.exists() else "does not exist"
            advice = "Name the folder with meta.json; a zip has to be unpacked first."
            raise ConfigError([Problem(Location("job"), f"{str(root)!r} {what}", advice, "job")])
        meta = read_json(root / "meta.json")
        location = Location("meta.json")
        apps = list(meta.get("deploy_map", {})) if isinstance(meta, dict) else []
        if len(apps) != 1:
            message = f"'deploy_map' has to name one app for all sites, found {apps}"
            raise ConfigError([Problem(location / "deploy_map", message, "", "job")])
        name = meta.get("name")
        form = META_FORMS["name"]
        if not form.fits(name):
            raise ConfigError([Problem(location / "name", f"has to be {form.text}", "", "job")])
        mmar = Mmar.open(root / apps[0])
        for document in (SERVER_CONFIG, CLIENT_CONFIG):
            read_json(mmar.document(document))
        return cls(folder=root, name=name, mmar=mmar)

    def copied_to(self, folder: Path, *, rounds: int | None, min_sites: int) -> Job:
        """Return a copy of this job with another number of rounds and of sites.

        Args:
            folder: becomes the copy; must not exist.
            rounds: None keeps the job's own number.
            min_sites: sites that each round needs.
        """
        shutil.copytree(self.folder, folder)
        app = folder / self.mmar.root.name
        _change(folder / "meta.json", {"min_clients": min_sites})
        changes: dict[str, Any] = {"min_clients": min_sites}
        if rounds is not None and self.trains:
            changes["num_rounds"] = rounds
        _change(app / "config" / SERVER_CONFIG, changes)
        return Job(folder=folder, name=self.name, mmar=Mmar(app))

    @property
    def documents(self) -> JobDocuments:
        """The job's two NVFlare documents; raises like ``JobDocuments.read``."""
        return JobDocuments.read(self.mmar.root)

    @property
    def trains(self) -> bool:
        """Whether the job trains; one that does not has the models evaluated that it brings."""
        return self.documents.trains

    @property
    def rounds(self) -> int:
        """How many rounds the job asks for; 0 where it does not train.

        Raises:
            ConfigError: ``num_rounds`` is not a positive whole number.
        """
        if not self.trains:
            return 0
        rounds = self.documents.server.get("num_rounds")
        if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
            location = Location(SERVER_CONFIG) / "num_rounds"
            message = f"has to be a positive whole number, found {rounds!r}"
            raise ConfigError([Problem(location, message, "", "job")])
        return rounds

    @property
    def encrypts(self) -> bool:
        """Whether sites send their updates encrypted."""
        return self.documents.federation.get("encrypt_layers") is not None

    def shortage(self, connected: Collection[str]) -> str:
        """Return which sites the job lacks before it can start, in a sentence; empty for none.

        Args:
            connected: the sites that the server has.
        """
        meta = read_json(self.folder / "meta.json")
        deployment = meta["deploy_map"][self.mmar.root.name]
        names = deployment.get("sites", []) if isinstance(deployment, dict) else deployment
        named = {ALL_SITES if str(name).upper() == ALL_SITES else str(name) for name in names}
        named.discard("server")
        taking_part = [site for site in sorted(connected) if named & {ALL_SITES, site}]
        absent = sorted(set(meta.get("mandatory_clients") or ()) - set(taking_part))
        if absent:
            return f"the job needs {', '.join(absent)}, not connected now"
        least = meta.get("min_clients") or 1
        if len(taking_part) >= least:
            return ""
        among = "" if ALL_SITES in named else f" of {', '.join(sorted(named))}"
        listed = f": {', '.join(taking_part)}" if taking_part else ""
        are = "is" if len(taking_part) == 1 else "are"
        return f"the job needs {least} sites{among}, {len(taking_part)} {are} connected{listed}"

    def class_paths(self) -> tuple[str, ...]:
        """Return every class that the job's NVFlare configs name; a site has to allow them."""
        documents = self.documents
        return tuple(sorted({*class_paths(documents.server), *class_paths(documents.client)}))


def class_paths(value: Any) -> Iterator[str]:
    """Yield every ``path`` of an object, at any depth of a document."""
    if isinstance(value, dict):
        if isinstance(value.get("path"), str):
            yield value["path"]
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from class_paths(item)


def _change(path: Path, changes: Mapping[str, Any]) -> None:
    write_json(path, {**read_json(path), **changes})

"""Clara Train's federated configs -> a job of today, with a word on each field of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fl_admin.jobs.clara.encryption import encrypted_layers
from fl_admin.jobs.clara.privacy import (
    EXCLUDE_PATH,
    FILTERS,
    argument_rules,
    exclusion,
    filter_of,
    in_order,
)
from fl_admin.jobs.clara.rules import (
    CLASSES,
    DEFAULTS,
    ENCRYPTING,
    FIELDS,
    KEPT,
    NO_RESUME,
    ONE_NETWORK,
    OWN_CODE,
    OWN_IMPORTS,
    UNKNOWN_CLASS,
    UNKNOWN_FIELD,
    Outcome,
    Rule,
    ignored,
    refused,
    translated,
)
from fl_admin.jobs.create import CreatedJob, JobRequest, create_job, start_files, temporary_job
from fl_admin.jobs.job import class_paths
from fl_admin.jobs.settings import JobSettings
from fl_client.jobs.files import META
from mmar_runtime.config.loader import ENVIRONMENT_FILE, TRAIN_FILE, load_train_config
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import BUILT_IN, first_level_primitives, read_json
from mmar_runtime.config.upgrades import upgrade_document
from mmar_runtime.config.variables import EXACT
from mmar_runtime.errors import ConfigError, Problem, did_you_mean
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG, SERVER_CONFIG
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_table import load_component_table
from mmar_runtime.policy.custom_check import own_class_fault, own_module, undefined_fault
from mmar_runtime.policy.mmar_check import SITE_VARIABLES

FORMATS = (1, 2)
OURS = ("fl_client.", "fl_server.")
KNOWN_PACKAGES = ("medl.", "nvflare.")
"""Where the old classes come from, if their ``path`` says so; all else is somebody's own code."""

CROSS_SITE = ("cross_validate", "cross_site_validation", "CrossSiteModelEval")
ADDED_CROSS_SITE = (
    "the job ends with cross-site validation, which the old one did not ask for; a site that does "
    "not want it says so in its policy: cross_site"
)
VARIABLE = ignored("a variable of this document, filled in where it is named")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldReport:
    """What became of one field.

    Attributes:
        location: the document and the place in it.
        name: the field's key, or the name of its class.
        value: what stood there; empty for a class.
        outcome: what became of it.
        text: what it is now, or why it is not there any more.
    """

    location: Location
    name: str
    value: str
    outcome: Outcome
    text: str

    def __str__(self) -> str:
        what = f" {self.value}" if self.value else f" {self.name}"
        return f"{self.outcome:<10} {self.location}:{what} -> {self.text}"

    def as_dict(self) -> dict[str, str]:
        """Return plain values for ``--json``."""
        return {
            "file": self.location.file,
            "place": self.location.place,
            "name": self.name,
            "value": self.value,
            "outcome": self.outcome,
            "text": self.text,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OldFederation:
    """An old federation's configs, read.

    Attributes:
        mmar: what it trains.
        name: the job's name, where the configs lie in a job; else empty.
        settings: what its configs ask for, as far as it can be had.
        fields: what becomes of each field, in the order of the documents.
        problems: what has to be mended in the configs first.
        values: variables for the new job.
    """

    mmar: Mmar
    name: str
    settings: JobSettings
    fields: tuple[FieldReport, ...]
    problems: tuple[Problem, ...]
    values: Mapping[str, Scalar]


def import_job(
    old: OldFederation,
    out: Path,
    *,
    name: str = "",
    with_code: bool = False,
    overwrite: bool = False,
    allow_dropped: Collection[str] = (),
) -> CreatedJob:
    """Make a job of an old federation's configs; arguments as for ``create_job``.

    Args:
        old: what was read.
        out: becomes the job's folder.
        name: the job's name.
        with_code: whether the MMAR's own code goes along.
        overwrite: whether a job that is there already is replaced.
        allow_dropped: refused fields without which the job is made nevertheless: places, keys or
            names of classes.

    Raises:
        ConfigError: with every refused field that is not allowed to be dropped, and every other
            fault of the configs and of the MMAR. Nothing is written then.
    """
    request = JobRequest(
        mmar=old.mmar,
        settings=old.settings,
        name=name or old.name,
        with_code=with_code,
        values=old.values,
    )
    problems = [*old.problems, *_dropped(old.fields, allow_dropped)]
    if not problems:
        created = create_job(request, out, overwrite=overwrite)
        asked = {step for report in old.fields for step in (report.name, *report.location.path)}
        added = (ADDED_CROSS_SITE,) if asked.isdisjoint(CROSS_SITE) else ()
        return replace(created, notices=(*added, *created.notices))
    try:
        with temporary_job(request):
            pass  # only for its problems, so that all are told at once
    except ConfigError as error:
        problems += error.problems
    raise ConfigError(problems)


def _dropped(fields: tuple[FieldReport, ...], allowed: Collection[str]) -> Iterator[Problem]:
    lost = [report for report in fields if report.outcome == "refused"]
    for report in lost:
        if report.name not in allowed and report.location.place not in allowed:
            advice = f"--allow-dropped {report.name} goes on without it."
            message = f"{report.value or report.name}: {report.text}"
            yield Problem(report.location, message, advice, "dropped")
    names = {name for report in lost for name in (report.name, report.location.place)}
    for word in allowed:
        if word not in names:
            message = f"no refused field is called {word!r}"
            yield Problem(
                Location("--allow-dropped"), message, did_you_mean(word, names), "dropped"
            )


# --- Reading -------------------------------------------------------------------------------------


def read_old_federation(
    folder: Path, *, mmar: Path | None = None, values: Mapping[str, Scalar] | None = None
) -> OldFederation:
    """Read the federated configs in a folder: of an MMAR, of a job with one app, or bare.

    Args:
        folder: holds ``config_fed_server.json`` and ``config_fed_client.json``, or ``config`` does.
        mmar: the MMAR, if it is another folder.
        values: variables for the new job.

    Raises:
        ConfigError: a document is missing or no JSON object, is not of the old formats, or there
            is no MMAR.
    """
    app, name = _app_of(folder.expanduser().resolve())
    config = app / "config" if (app / "config").is_dir() else app
    documents = _documents(config)
    if mmar is None and not (app / TRAIN_FILE).is_file():
        message = f"holds no {TRAIN_FILE}, so there is nothing to train"
        advice = "Name the MMAR with --mmar."
        raise ConfigError([Problem(Location(app.name), message, advice, "mmar")])
    home = Mmar.open(mmar or app)
    reading = _Reading(home, documents, values or {})
    for file, document in documents.items():
        reading.visit(document, Location(file), ())
    reading.checkpoint()
    return OldFederation(
        mmar=home,
        name=name,
        settings=reading.settings(),
        fields=tuple(reading.fields),
        problems=tuple(reading.problems),
        values=values or {},
    )


def _app_of(folder: Path) -> tuple[Path, str]:
    """Return the folder with the configs, and the job's name if it is a job's app."""
    if not (folder / META).is_file():
        return folder, ""
    meta = read_json(folder / META)
    apps = list(meta.get("deploy_map", {})) if isinstance(meta, dict) else []
    if len(apps) != 1:
        message = f"the job has to have one app for all sites, found {apps}"
        raise ConfigError([Problem(Location(META) / "deploy_map", message, "", "job")])
    return folder / str(apps[0]), str(meta.get("name", ""))


def _documents(config: Path) -> dict[str, dict[str, Any]]:
    documents: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for file in (SERVER_CONFIG, CLIENT_CONFIG):
        try:
            document = read_json(config / file)
        except ConfigError as error:
            problems += error.problems
            continue
        place = Location(file)
        if not isinstance(document, dict):
            problems.append(Problem(place, "has to be a JSON object", "", "json"))
        elif document.get("format_version") not in FORMATS:
            message = f"has to be 1 or 2, found {document.get('format_version')!r}"
            problems.append(Problem(place / "format_version", message, "", "job"))
        elif any(path.startswith(OURS) for path in class_paths(document)):
            advice = "'mmar submit' and 'mmar simulate' take the job as it is."
            problems.append(Problem(place, "is of today already", advice, "job"))
        documents[file] = document
    if problems:
        raise ConfigError(problems)
    return documents


@dataclass
class _Reading:
    """Both documents on their way to settings and reports."""

    mmar: Mmar
    documents: Mapping[str, Mapping[str, Any]]
    values: Mapping[str, Scalar]
    fields: list[FieldReport] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    _found: dict[str, tuple[Any, Location]] = field(default_factory=dict)
    _filters: list[Mapping[str, Any]] = field(default_factory=list)
    _left_out: list[str] = field(default_factory=list)
    _kept: list[str] = field(default_factory=list)
    _aggregator: Mapping[str, Any] | None = None

    def visit(self, value: Any, location: Location, path: tuple[str, ...]) -> None:
        """Judge whatever stands at a place.

        Args:
            value: what stands there.
            location: the place.
            path: its keys without list indices.
        """
        if isinstance(value, list) and (
            # An array of plain values is a value by itself.
            not value or any(isinstance(item, dict | list) for item in value)
        ):
            for index, item in enumerate(value):
                self.visit(item, location / index, path)
        elif isinstance(value, dict) and _is_component(value, path):
            self._class(value, location)
        elif isinstance(value, dict):
            for key, item in value.items():
                self.visit(item, location / key, (*path, key))
        else:
            variable = VARIABLE if len(path) == 1 else UNKNOWN_FIELD
            rule = FIELDS.get(".".join(path), variable)
            self._field(rule, value, location, path[-1] if path else "")

    def _class(self, component: Mapping[str, Any], location: Location) -> None:
        named = str(component.get("path") or component.get("name"))
        name = named.rpartition(".")[2]
        foreign = "path" in component and not named.startswith(KNOWN_PACKAGES)
        known = UNKNOWN_CLASS if foreign else CLASSES.get(name, UNKNOWN_CLASS)
        if component.get("id") is not None and component["id"] == self._network_id():
            self._network(component, location)
            return
        if self._own_class(named, component, location) or (
            name in FILTERS and not foreign and self._filter(name, component, location)
        ):
            return
        rule = known.rule
        self._report(location, name, "", rule)
        arguments = component.get("args") or {}
        if rule.outcome == "refused" or not isinstance(arguments, dict):
            return
        for key, value in arguments.items():
            place = location / "args" / key
            if name.endswith("Persistor") and key == "model":
                self._network(value, place)
            elif key == "encrypt_layers" and key in known.arguments:
                continue  # below, whether or not it is there
            elif key == "exclude_vars" and key in known.arguments:
                self._exclusion(known.arguments[key].text, value, place)
            elif isinstance(value, dict) and _is_component(value, (key,)):
                self._class(value, place)
            elif (  # an array of classes, as an executor's own components are
                isinstance(value, list)
                and value
                and all(isinstance(item, dict) and _is_component(item, (key,)) for item in value)
            ):
                for index, item in enumerate(value):
                    self._class(item, place / index)
            else:
                self._field(known.arguments.get(key, UNKNOWN_FIELD), value, place, key)
        if "encrypt_layers" in known.arguments:
            self._encryption(arguments.get("encrypt_layers"), location / "args" / "encrypt_layers")
        for key, rule in known.arguments.items():
            default = DEFAULTS.get(f"{name}.{key}")
            if default is not None and key not in arguments:
                self._field(rule, default, location / "args" / key, key)

    def _encryption(self, value: Any, location: Location) -> None:
        """Take the tensors that sites encrypted; all of them where they are not named."""
        value = self._filled(value, location.file)
        rule, names = encrypted_layers(value)
        text = f"encrypt_layers = {value!r}"
        self._report(location, "encrypt_layers", text, rule)
        self._take("encrypt_layers", names, location)

    def _unencrypted(self) -> Iterator[Problem]:
        """Parts of an encrypted federation whose sites encrypt nothing."""
        named = [report for report in self.fields if report.name in ENCRYPTING]
        if named and "encrypt_layers" not in self._found:
            message = f"{named[0].name} asks for encrypted updates, and no site encrypts"
            advice = "Add HEModelEncryptor to the sites' filters, or take this class out."
            yield Problem(named[0].location, message, advice, "job")

    def _filter(self, name: str, component: Mapping[str, Any], location: Location) -> bool:
        """Take a privacy filter of outgoing updates; return whether the filter is one of those."""
        if not _is_outwards(location):
            return False
        arguments = component.get("args") or {}
        if not isinstance(arguments, dict):
            return False
        filled = {key: self._filled(value, location.file) for key, value in arguments.items()}
        rule, entry = filter_of(name, filled)
        self._report(location, name, "", rule)
        if entry is not None:
            self._filters.append(entry)
            for key, argument in argument_rules(name, filled):
                place, value = location / "args" / key, f"{key} = {filled[key]!r}"
                self._report(place, key, value, argument)
        return True

    def _own_class(self, named: str, component: Mapping[str, Any], location: Location) -> bool:
        """Take a class of the MMAR's own where a job may name one; return whether it did."""
        custom, outwards = self.mmar.custom, _is_outwards(location)
        if "path" not in component or own_module(named, custom) is None:
            return False
        if not outwards and not self._is_aggregator(component, location):
            return False
        name = named.rpartition(".")[2]
        fault = undefined_fault(named, custom) or own_class_fault(named, custom)
        if fault:
            self._report(location, name, "", refused(fault))
            return True
        arguments = component.get("args") or {}
        entry: dict[str, Any] = {"path": named, "args": arguments}
        if outwards:
            self._filters.append(entry)
        else:
            self._aggregator = entry
        self._report(location, name, "", translated(f"{OWN_CODE}; {OWN_IMPORTS}"))
        for key, value in arguments.items():
            self._report(location / "args" / key, key, f"{key} = {value!r}", translated(key))
        return True

    def _is_aggregator(self, component: Mapping[str, Any], location: Location) -> bool:
        if location.file != SERVER_CONFIG:
            return False
        ids = {"aggregator"}
        for workflow in self.documents[SERVER_CONFIG].get("workflows") or ():
            arguments = workflow.get("args") if isinstance(workflow, dict) else None
            if isinstance(arguments, dict) and isinstance(arguments.get("aggregator_id"), str):
                ids.add(arguments["aggregator_id"])
        return location.path == ("aggregator",) or (
            location.path[0] == "components" and component.get("id") in ids
        )

    def _exclusion(self, text: str, value: Any, location: Location) -> None:
        """Tensors that the server left alone, or never shared."""
        rule, patterns = exclusion(self._filled(value, location.file), text)
        (self._kept if text == KEPT else self._left_out).extend(patterns)
        self._report(location, "exclude_vars", f"exclude_vars = {value!r}", rule)

    def _field(self, rule: Rule, value: Any, location: Location, name: str) -> None:
        value = self._filled(value, location.file)
        if rule.sets:
            self._set(rule, value, location)
        if rule.outcome == "refused" and any(
            bool(value == harmless)
            and isinstance(value, bool) == isinstance(harmless, bool)  # 0 is not False
            for harmless in rule.harmless
        ):
            rule = ignored("asks for nothing but what happens anyway")
        self._report(location, name, f"{name} = {value!r}", rule)

    def _set(self, rule: Rule, value: Any, location: Location) -> None:
        if rule.sets == "aggregation_weights":
            value = {} if value is None else value
        elif rule.sets == "weigh_by" and (value is None or isinstance(value, bool)):
            value = "equal" if value is False else "steps"
        elif (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and value == int(value) >= 0
        ):
            value = int(value) * rule.factor
        else:
            form = "true or false" if rule.sets == "weigh_by" else "a whole number"
            message = f"has to be {form}, found {value!r}"
            self.problems.append(Problem(location, message, "", "job"))
            return
        self._take(rule.sets, value, location)

    def _take(self, name: str, value: Any, location: Location) -> None:
        """Keep what a setting is to be; two documents have to agree on it."""
        before, place = self._found.setdefault(name, (value, location))
        if before != value:
            message = f"asks for {value!r}, and {place} for {before!r}"
            self.problems.append(Problem(location, message, "Let both say the same.", "job"))

    def _filled(self, value: Any, file: str) -> Any:
        """Return a value of its document, where just its name stands in braces."""
        return _filled(value, self.documents[file])

    def _network_id(self) -> Any:
        """Return the id of the component that is the server's network, if a component is."""
        components = self.documents[SERVER_CONFIG].get("components")
        for component in components if isinstance(components, list) else ():
            arguments = component.get("args") if isinstance(component, dict) else None
            if isinstance(arguments, dict) and isinstance(arguments.get("model"), str):
                return arguments["model"]
        return None

    def _network(self, network: Any, location: Location) -> None:
        """Report the server's own network, which has to be the network that the sites train."""
        if isinstance(network, str):
            self._report(location, "model", f"model = {network!r}", ignored("an id"))
            return
        document = read_json(self.mmar.root / TRAIN_FILE)
        train = document if isinstance(document, dict) else {}  # making the job tells of it
        section = train.get("train")
        trained = section.get("model") if isinstance(section, dict) else None
        variables = {**BUILT_IN, **first_level_primitives(train), **self._environment()}
        same = _network_of(network, variables) == _network_of(trained, variables)
        rule = ignored("it is the network of config_train.json") if same else refused(ONE_NETWORK)
        self._report(location, "model", "", rule)

    def _environment(self) -> dict[str, Any]:
        path = self.mmar.root / ENVIRONMENT_FILE
        environment = read_json(path) if path.is_file() else {}
        return environment if isinstance(environment, dict) else {}

    def _report(self, location: Location, name: str, value: str, rule: Rule) -> None:
        outcome, text = rule.outcome, rule.text
        self.fields.append(
            FieldReport(location=location, name=name, value=value, outcome=outcome, text=text)
        )

    def checkpoint(self) -> None:
        """Report the file from which Clara's server started, if the file is there."""
        file = {**BUILT_IN, **self._environment()}.get("MMAR_CKPT")
        if not file or not (self.mmar.root / str(file)).is_file():
            return
        try:
            config = load_train_config(self.mmar, site=SITE_VARIABLES, overrides=self.values)
        except ConfigError:
            return  # which making the job tells of
        if "dont_load_ckpt_model" in self.values or any(start_files([config], self.mmar.root)):
            return
        text = f"{NO_RESUME}, here with --set dont_load_ckpt_model=false"
        location = Location(Path(ENVIRONMENT_FILE).name) / "MMAR_CKPT"
        self._report(location, "MMAR_CKPT", f"MMAR_CKPT = {file!r}", refused(text))

    def settings(self) -> JobSettings:
        """Return the settings; add a problem for each that is missing."""
        given = {key: value for key, (value, _) in self._found.items()}
        others = [key for key in given if key not in JobSettings.__dataclass_fields__]
        arguments = {key: given.pop(key) for key in others}
        for name, (file, text) in _REQUIRED.items():
            if name not in given:
                self.problems.append(Problem(Location(file), text, "", "job"))
        self.problems += self._unencrypted()
        given.setdefault("weigh_by", "steps")
        return JobSettings(**given, **self._privacy(), arguments=arguments)

    def _privacy(self) -> dict[str, Any]:
        """Filters, exclusions and an own aggregator, as far as there are any."""
        filters: list[Mapping[str, Any]] = []
        left_out: list[str] = []
        own = {"path": EXCLUDE_PATH, "args": {"exclude_vars": self._left_out}}
        for entry in (*self._filters, own):
            if entry["path"] != EXCLUDE_PATH:
                filters.append(entry)
                continue
            # What is not shared anyway need not be excluded.
            wanted = dict.fromkeys(entry["args"]["exclude_vars"])
            if names := [name for name in wanted if name not in self._kept]:
                filters.append({**entry, "args": {"exclude_vars": names}})
                left_out += names
        return {
            "exclude_vars": tuple(dict.fromkeys(self._kept)),
            "optional_names": tuple(dict.fromkeys(left_out)),
            "result_filters": tuple(in_order(filters)),
            "aggregator": self._aggregator,
        }


_REQUIRED = {
    "rounds": (SERVER_CONFIG, "does not say how many rounds: num_rounds"),
    "min_sites": (SERVER_CONFIG, "does not say how many sites a round needs: min_num_clients"),
    "local_epochs": (CLIENT_CONFIG, "does not say how a site trains: no trainer that is known"),
}


def _is_outwards(location: Location) -> bool:
    """Return whether a filter is where a site's updates pass on their way out."""
    words = tuple(step for step in location.path if isinstance(step, str))
    return location.file == CLIENT_CONFIG and words in (
        ("client", "outbound_filters"),
        ("task_result_filters", "filters"),
    )


def _is_component(value: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Return whether an object names a class; a server has a name as well."""
    if path == ("servers",):
        return False
    named = isinstance(value.get("path"), str) or isinstance(value.get("name"), str)
    return named and value.keys() <= {"id", "name", "path", "args"}


def _network_of(component: Any, variables: Mapping[str, Any]) -> Any:
    """Return a network in today's names, with its variables filled in: to be compared."""
    if not isinstance(component, dict):
        return component
    today = upgrade_document({"train": {"model": component}}, "").document["train"]["model"]
    table = load_component_table()
    path, name = today.get("path"), str(today.get("name")).partition("#")[0]
    entry = table.by_path(str(path)) if path else table.lookup("network", name)
    arguments = today.get("args") or {}
    if not isinstance(arguments, dict):
        return today  # for the loader to refuse
    filled = {key: _filled(value, variables) for key, value in arguments.items()}
    return (entry.path if entry else path or name), filled


def _filled(value: Any, variables: Mapping[str, Any]) -> Any:
    match = EXACT.fullmatch(value) if isinstance(value, str) else None
    return variables.get(match[1], value) if match else value

"""The policy of a site: a JSON file in the folder that the site owns, or the built-in defaults.

The file can only tighten the defaults: a limit above the built-in one is an error, not a wish. A
right that is off by default is a consent, and a site that gives it writes it down: ``byoc``,
``egress``, ``torchscript_sha256`` and all digits of metrics; and ``data_roots``, which no job can
extend.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import read_json
from mmar_runtime.confinement.wall import MODES, Mode
from mmar_runtime.errors import ConfigError, Problem, did_you_mean
from mmar_runtime.metrics import Metrics, MetricValue, rounded
from mmar_runtime.policy.files.writers import other_owner, other_writers

SITE_POLICY_FILE = "mmar_site_policy.json"
POLICY_VERSION = 1

ByocMode = Literal["off", "by_hash", "on"]
BYOC_MODES: tuple[ByocMode, ...] = ("off", "by_hash", "on")

JobsMode = Literal["signed", "approved"]
JOBS_MODES: tuple[JobsMode, ...] = ("signed", "approved")

CONSENT_RULES = frozenset({"code", "egress", "metric-count", "torchscript"})
"""The rules whose refusals a site's policy can lift; every other refusal holds at every site."""

SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_ROUND_DIGITS = 15
"""A float holds no more decimal digits than that."""

ALL_DIGITS = "all"
"""The consent by which metrics leave as they are."""

MOST_METRICS = 256
"""More numbers than any report is read for."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Byoc:
    """Code that a job brings along in ``custom/``.

    Attributes:
        mode: ``off`` refuses it, ``by_hash`` takes approved folders, ``on`` takes all.
        approved: the SHA-256 of approved ``custom`` folders, see ``code_hash``.
    """

    mode: ByocMode = "off"
    approved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that a job may ask for; each default is also the highest value of the file.

    Attributes:
        epochs_per_round: local epochs of one round; all epochs where there are no rounds.
        rounds: rounds of one job.
        wall_minutes: minutes from the start of a job to its end at the site.
        workers: processes of one data loader.
        parameters: numbers in the network.
        image_voxels: voxels of one image, from its header.
        image_bytes: bytes of an unpacked image.
        disk_gib: GiB that a run may write.
        memory_gib: GiB of memory that a run may take.
    """

    epochs_per_round: int = 100
    rounds: int = 1000
    wall_minutes: int = 7 * 24 * 60
    workers: int = 32
    parameters: int = 500_000_000
    image_voxels: int = 1_000_000_000
    image_bytes: int = 8 * 2**30
    disk_gib: int = 100
    memory_gib: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """Which metrics leave the site.

    Attributes:
        metrics: their names; None means every aggregate metric of the job.
        round_digits: significant decimal digits that are kept; None means all of them.
        count_digits: significant decimal digits of the numbers of steps, samples and cases, which
            are rounded down; None means all of them.
        max_metrics: metrics in one report.
        max_evaluations: models that one job may have evaluated here, besides those of its rounds.
    """

    metrics: tuple[str, ...] | None = None
    round_digits: int | None = 4
    count_digits: int | None = None
    max_metrics: int = 32
    max_evaluations: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossSite:
    """The site's part in cross-site validation.

    Attributes:
        evaluate_others: whether models of other sites are evaluated here.
        share_model: whether this site's best model is sent to be evaluated elsewhere.
        min_cases: persons in a list below which no metric of it is reported.
    """

    evaluate_others: bool = True
    share_model: bool = True
    min_cases: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """The site's privacy budget, over all jobs.

    Attributes:
        epsilon_max: the most that contributions may cost together; None means no bound.
    """

    epsilon_max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePolicy:
    """The rights of a job at a site; the defaults are those of a site without a policy file.

    Attributes:
        byoc: code of the job's own.
        confinement: whether the kernel confines the process of a job: ``preferred`` takes all that
            the kernel gives, ``required`` refuses jobs where files, programs and network are not
            covered, ``off`` runs them with all rights of the site's process.
        signers: who may have signed a job; None means everyone whom NVFlare accepts.
        data_roots: absolute folders below which data may lie; none means the site's own
            ``DATA_ROOT`` alone.
        limits: upper bounds.
        denied_components: classes that may not be named though the table has them.
        egress: whether handlers may send to other machines.
        outgoing: metrics that leave.
        min_dataset_size: persons in the training list below which the site does not take part.
        patient_key: the key of a data list's items that names the person; None for any of the
            usual ones.
        cross_site: part in cross-site validation.
        required_filters: privacy filters without which nothing leaves.
        privacy: the privacy budget.
        torchscript_sha256: SHA-256 of TorchScript files that a job may load.
        jobs: ``signed`` judges each job that NVFlare accepts, ``approved`` refuses besides those
            that the site has not approved as a whole.
        approved_jobs: the digests of approved jobs, see ``job_digest``.
    """

    byoc: Byoc = field(default_factory=Byoc)
    confinement: Mode = "preferred"
    signers: tuple[str, ...] | None = None
    data_roots: tuple[Path, ...] = ()
    limits: Limits = field(default_factory=Limits)
    denied_components: tuple[str, ...] = ()
    egress: bool = False
    outgoing: Outgoing = field(default_factory=Outgoing)
    min_dataset_size: int = 1
    patient_key: str | None = None
    cross_site: CrossSite = field(default_factory=CrossSite)
    required_filters: tuple[str, ...] = ()
    privacy: Privacy = field(default_factory=Privacy)
    torchscript_sha256: tuple[str, ...] = ()
    jobs: JobsMode = "signed"
    approved_jobs: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the policy as canonical JSON: equal for policies that mean the same."""
        content = {"policy_version": POLICY_VERSION, **asdict(self)}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def lets_out(self, label: str) -> bool:
        """Return whether a metric may leave, by its label."""
        return self.outgoing.metrics is None or label in self.outgoing.metrics

    def rounded(self, metrics: Metrics) -> dict[str, MetricValue]:
        """Return the metrics that may leave, rounded as the policy says; the others are left out.

        >>> outgoing = Outgoing(metrics=("dice",), round_digits=2)
        >>> one, other = MetricValue(value=0.8765, counted=9), MetricValue(value=0.1, counted=9)
        >>> SitePolicy(outgoing=outgoing).rounded({"dice": one, "acc": other})["dice"].value
        0.88
        """
        digits = self.outgoing.round_digits
        kept = {label: metric for label, metric in metrics.items() if self.lets_out(label)}
        if digits is None:
            return kept
        return {label: rounded(metric, digits) for label, metric in kept.items()}

    def rounded_count(self, count: int) -> int:
        """Return a number of steps, samples or cases as it may leave."""
        digits = self.outgoing.count_digits
        return count if digits is None else rounded_down(count, digits)


def rounded_down(count: int, digits: int) -> int:
    """Return a count with so many significant decimal digits, the others zero.

    >>> [rounded_down(count, 1) for count in (1, 19, 137)]
    [1, 10, 100]
    """
    kept = str(count)[:digits]
    return int(kept.ljust(len(str(count)), "0"))


DEFAULT_POLICY = SitePolicy()
OWN_MMAR_POLICY = replace(
    DEFAULT_POLICY, byoc=Byoc(mode="on"), egress=True, outgoing=Outgoing(round_digits=None)
)
"""For ``mmar train`` on the user's own MMAR, with the user's code, trackers and numbers."""


def read_site_policy(path: Path) -> SitePolicy:
    """Return the policy in a file.

    Raises:
        ConfigError: no such file, writable by others, or not a policy; with every unknown key,
            wrong type and value that is looser than the built-in default.
    """
    location = Location(path.name)
    document = read_json(path)
    if writers := other_writers(path):
        advice = f"Run 'chmod 600 {path.name}': {_DECIDES}"
        raise ConfigError([Problem(location, f"can be written by {writers}", advice, "policy")])
    return parse_policy(document, location)


def parse_policy(document: Any, location: Location) -> SitePolicy:
    """Return the policy in a JSON document.

    Raises:
        ConfigError: with every unknown key, wrong type and value that is looser than the default.
    """
    reading = _Reading()
    policy = reading.policy(document, location)
    if reading.problems:
        raise ConfigError(reading.problems)
    return policy


def policy_document(policy: SitePolicy) -> dict[str, Any]:
    """Return a policy as the JSON of its file, without values that are None."""
    content = {key: value for key, value in asdict(policy).items() if value is not None}
    for part in ("outgoing", "privacy"):
        content[part] = {k: v for k, v in content[part].items() if v is not None}
    content["outgoing"].setdefault("round_digits", ALL_DIGITS)
    return {"policy_version": POLICY_VERSION, **json.loads(json.dumps(content, default=str))}


def site_policy(local: Path) -> SitePolicy:
    """Return the policy of the site that owns a folder; the defaults where it has none.

    Raises:
        ConfigError: the file has a fault, or somebody besides the site could put another in its
            place: it is a link, or the file or its folder belongs to another user, or others can
            write to the folder.
    """
    path = local / SITE_POLICY_FILE
    if problems := list(_not_the_sites_own(path)):
        raise ConfigError(problems)
    return read_site_policy(path) if os.path.lexists(path) else DEFAULT_POLICY


_DECIDES = "who can change it decides what runs here."


def _not_the_sites_own(path: Path) -> Iterator[Problem]:
    """Yield the reasons why a policy file may not be the file that the site has written."""
    local, name = path.parent, path.name
    if path.is_symlink():
        advice = f"Put the file itself in its place: {_DECIDES}"
        yield Problem(Location(name), "is a link", advice, "policy")
        return
    if local.exists() and (writers := other_writers(local)):
        message = f"can be written by {writers}, who can replace {name}"
        yield Problem(Location(local.name), message, f"Run 'chmod 700 {local.name}'.", "policy")
    for place in (place for place in (local, path) if place.exists()):
        if owner := other_owner(place):
            message = f"belongs to {owner}, and this process is another user's"
            advice = f"Start it as that user, or run 'chown' on {place.name}: {_DECIDES}"
            yield Problem(Location(place.name), message, advice, "policy")


class _Reading:
    """A reader of a policy file that collects all faults."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def policy(self, raw: Any, location: Location) -> SitePolicy:
        known = ("policy_version", *(part.name for part in fields(SitePolicy)))
        given = self._object(raw, location, known)
        version = given.pop("policy_version", None)
        if version != POLICY_VERSION or isinstance(version, bool):
            fault = "is missing" if version is None else f"is {version!r}"
            message = f"{fault}, and has to be {POLICY_VERSION}"
            self._problem(location / "policy_version", message)
        return self._record(
            SitePolicy,
            given,
            location,
            {
                "byoc": self._byoc,
                "confinement": self._word(MODES, "required"),
                "signers": self._texts,
                "data_roots": self._roots,
                "limits": self._part(
                    Limits, {part.name: self._at_most(part.default) for part in fields(Limits)}
                ),
                "denied_components": self._texts,
                "egress": self._flag,
                "outgoing": self._part(
                    Outgoing,
                    {
                        "metrics": self._texts,
                        "round_digits": self._digits,
                        "count_digits": self._digits,
                        "max_metrics": self._at_most(MOST_METRICS),
                        "max_evaluations": self._count,
                    },
                ),
                "min_dataset_size": self._count,
                "patient_key": self._text,
                "cross_site": self._part(
                    CrossSite,
                    {
                        "evaluate_others": self._flag,
                        "share_model": self._flag,
                        "min_cases": self._count,
                    },
                ),
                "required_filters": self._texts,
                "privacy": self._part(Privacy, {"epsilon_max": self._epsilon}),
                "torchscript_sha256": self._digests,
                "jobs": self._word(JOBS_MODES, "approved"),
                "approved_jobs": self._digests,
            },
        )

    def _byoc(self, raw: Any, location: Location) -> Byoc:
        readers = {"mode": self._word(BYOC_MODES, "off"), "approved": self._digests}
        byoc = self._part(Byoc, readers)(raw, location)
        if byoc.mode == "by_hash" and not byoc.approved:
            self._problem(
                location / "approved",
                "is empty, so 'by_hash' allows nothing",
                "Approve a folder with 'mmar site approve', or write off.",
            )
        return byoc

    def _word(self, allowed: Sequence[T], otherwise: T) -> Callable[[Any, Location], T]:
        """Return the reader of one word of a list; ``otherwise`` replaces any other value."""

        def read(raw: Any, location: Location) -> T:
            for word in allowed:
                if raw == word:
                    return word
            advice = did_you_mean(str(raw), [str(word) for word in allowed])
            self._problem(location, f"{raw!r} is not a mode", advice)
            return otherwise

        return read

    def _part(
        self, kind: Callable[..., T], readers: Mapping[str, Callable[[Any, Location], Any]]
    ) -> Callable[[Any, Location], T]:
        """Return the reader of an object in the policy."""

        def read(raw: Any, location: Location) -> T:
            return self._record(kind, self._object(raw, location, readers), location, readers)

        return read

    def _epsilon(self, raw: Any, location: Location) -> float:
        if type(raw) in (int, float) and math.isfinite(raw) and raw > 0:
            return float(raw)
        message = f"has to be a number above 0, found {raw!r}"
        self._problem(location, message, "Leave it out to set no bound.")
        return 0.0

    def _at_most(self, highest: Any) -> Callable[[Any, Location], int]:
        def read(raw: Any, location: Location) -> int:
            value = self._count(raw, location)
            if value > highest:
                message = f"{value} is looser than the built-in limit, {highest}"
                self._problem(location, message, "A policy can only tighten it.")
            return value

        return read

    def _digits(self, raw: Any, location: Location) -> int | None:
        if raw == ALL_DIGITS:
            return None
        if type(raw) is int and 1 <= raw <= MAX_ROUND_DIGITS:
            return raw
        message = f"has to be a whole number from 1 to {MAX_ROUND_DIGITS}, found {raw!r}"
        self._problem(location, message, f"Write {ALL_DIGITS!r} to send numbers unrounded.")
        return 1

    def _count(self, raw: Any, location: Location) -> int:
        if type(raw) is int and raw >= 1:
            return raw
        self._problem(location, f"has to be a whole number from 1 on, found {raw!r}")
        return 1

    def _flag(self, raw: Any, location: Location) -> bool:
        if not isinstance(raw, bool):
            self._problem(location, f"has to be true or false, found {raw!r}")
        return raw is True

    def _texts(self, raw: Any, location: Location) -> tuple[str, ...]:
        if isinstance(raw, list) and all(isinstance(text, str) and text.strip() for text in raw):
            return tuple(raw)
        self._problem(location, f"has to be an array of texts, found {raw!r}")
        return ()

    def _text(self, raw: Any, location: Location) -> str:
        if isinstance(raw, str) and raw.strip():
            return raw
        self._problem(location, f"has to be a text, found {raw!r}")
        return ""

    def _digests(self, raw: Any, location: Location) -> tuple[str, ...]:
        digests = self._texts(raw, location)
        for index, text in enumerate(digests):
            if not SHA256.fullmatch(text):
                message = f"{text!r} is not a SHA-256: 64 hexadecimal digits in small letters"
                self._problem(location / index, message)
        return digests

    def _roots(self, raw: Any, location: Location) -> tuple[Path, ...]:
        roots = tuple(Path(text) for text in self._texts(raw, location))
        for index, root in enumerate(roots):
            if not root.is_absolute() or ".." in root.parts or root == Path(root.anchor):
                message = f"{str(root)!r} has to be an absolute folder below /, without '..'"
                self._problem(location / index, message)
        return roots

    def _object(self, raw: Any, location: Location, known: Any) -> dict[str, Any]:
        if not isinstance(raw, dict):
            self._problem(location, f"has to be a JSON object, found {raw!r}")
            return {}
        for key in raw.keys() - set(known):
            advice = did_you_mean(key, known)
            self._problem(location / key, f"unknown key {key!r}", advice)
        return {key: value for key, value in raw.items() if key in known}

    def _record(
        self,
        kind: Callable[..., T],
        given: Mapping[str, Any],
        location: Location,
        readers: Mapping[str, Callable[[Any, Location], Any]],
    ) -> T:
        """Return the dataclass of the given values, each read by its reader, else default."""
        return kind(**{key: readers[key](value, location / key) for key, value in given.items()})

    def _problem(self, location: Location, message: str, advice: str = "") -> None:
        self.problems.append(Problem(location, message, advice, "policy"))

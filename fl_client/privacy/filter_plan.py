"""The filters that a contribution passes on its way out of a site: the site's own, then the job's.

NVFlare applies them in this order. What would go wrong is told before anything is trained.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fl_client.privacy.filters import (
    PRIVACY_FILE,
    is_outwards,
    lacking_filters,
    names_by_scope,
    outgoing_filters,
    read_privacy,
)
from fl_client.privacy.ledger import PrivacyLedger
from fl_client.privacy.settings import SETTINGS, Settings, SvtSettings, filter_settings
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.exchange.job_documents import (
    CLIENT_CONFIG,
    DATA_FILTERS,
    RESULT_FILTERS,
    JobDocuments,
)
from mmar_runtime.exchange.messages import TASKS, TRAIN
from mmar_runtime.exchange.sharing import matching
from mmar_runtime.policy.site_policy import SitePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFilter:
    """A filter of ours on the way out.

    Attributes:
        owner: who asks for it.
        location: where it stands.
        settings: what it is told.
    """

    owner: Literal["site", "job"]
    location: Location
    settings: Settings


@dataclass(frozen=True, slots=True)
class FilterPlan:
    """The filters of ours at one site for one job, in the order in which they run.

    Attributes:
        filters: in that order.
        may_lack: patterns of the tensors that the job's aggregator does without.
        scopes: names of all filters on the way out, whosever, in each scope of the site.
        misplaced: chains of the job that NVFlare would not run as they seem.
    """

    filters: tuple[PlannedFilter, ...]
    may_lack: tuple[str, ...] = ()
    scopes: tuple[frozenset[str], ...] = ()
    misplaced: tuple[Problem, ...] = ()

    @classmethod
    def read(cls, local: Path, app: Path) -> FilterPlan:
        """Return the plan of a site for a job.

        Args:
            local: the folder that the site owns.
            app: the job's app, an MMAR with NVFlare's configs.

        Raises:
            ConfigError: an argument of a filter has a fault, or a document cannot be read.
        """
        job, privacy = JobDocuments.read(app), read_privacy(local)
        optional = job.federation.get("optional_names")
        return cls(
            filters=(*_site_filters(privacy), *job_filters(job)),
            may_lack=tuple(optional) if isinstance(optional, list) else (),
            scopes=names_by_scope(privacy),
            misplaced=tuple(chain_faults(job)),
        )

    def faults(self, policy: SitePolicy) -> Iterator[Problem]:
        """Yield what is wrong whatever the network is."""
        yield from lacking_filters(self.scopes, policy)
        yield from self.misplaced
        private = [index for index, entry in enumerate(self.filters) if entry.settings.is_private]
        for entry in self.filters[private[0] :] if private else ():
            if not entry.settings.is_private:
                first = self.filters[private[0]]
                message = (
                    f"{entry.settings.name} of the {entry.owner} comes behind "
                    f"{first.settings.name} of the {first.owner}, which would "
                    "count and choose among values that do not leave"
                )
                yield Problem(entry.location, message, _REORDER[entry.owner], "privacy")
        bounded = any(  # the filter counts all that leaves; only a site may send bare buffers
            isinstance(entry.settings, SvtSettings)
            and (entry.owner == "site" or entry.settings.buffers == "keep")
            for entry in self.filters
        )
        if policy.privacy.epsilon_max is not None and not bounded:
            message = (
                "this site bounds its epsilon, and no SVTPrivacy is on the way out that keeps "
                "buffers at the site"
            )
            advice = (
                "A job can ask for one with buffers 'keep'; only the site itself, in its "
                "privacy.json, for one that sends them."
            )
            yield Problem(Location(CLIENT_CONFIG), message, advice, "privacy")

    def spendings(self, policy: SitePolicy) -> int:
        """Return how many lines each contribution adds to the ledger: one for each SVTPrivacy.

        A site that bounds its epsilon counts at least one, whatever the plan is.
        """
        counted = sum(isinstance(entry.settings, SvtSettings) for entry in self.filters)
        return max(counted, int(policy.privacy.epsilon_max is not None))

    def holds_models_back(self, policy: SitePolicy) -> bool:
        """Return whether filters or budget are to hold back what a whole model would tell."""
        return policy.privacy.epsilon_max is not None or bool(self.filters)

    def require(
        self,
        sizes: Mapping[str, int],
        buffers: frozenset[str],
        policy: SitePolicy,
        ledger: PrivacyLedger,
    ) -> None:
        """Judge what only shows once the network is there, before it is trained.

        Args:
            sizes: name -> numbers of each tensor that would be sent.
            buffers: names of those that no optimizer moves.
            policy: of the site.
            ledger: of the site.

        Raises:
            ConfigError: an exclusion fits no tensor, nothing is left, or the job's aggregator takes
                no contribution without the tensors that are left out.
            PolicyError: the privacy budget is spent.
        """
        left, cost = tuple(sizes), 0.0
        for entry in self.filters:
            gone = entry.settings.left_out(left, buffers)
            for pattern in getattr(entry.settings, "exclude_vars", ()):
                if not matching([pattern], gone):  # tensors that it was to keep would leave
                    raise _unfit(entry, f"{pattern!r} fits none of the {len(left)} tensors")
            _require_allowed(entry, gone, self.may_lack)
            left = tuple(name for name in left if name not in gone)
            if not (filtered := sum(sizes[name] for name in left if name not in buffers)):
                raise _unfit(entry, "nothing is left to send")
            cost += entry.settings.cost(filtered)
        if cost:
            ledger.require(cost, policy.privacy.epsilon_max)


_REORDER = {
    "site": f"Write it before the other one in {PRIVACY_FILE}.",
    "job": (
        "Filters of a site come first. Keep tensors at the sites by shared_names instead, or let "
        "the sites exclude them."
    ),
}


def _require_allowed(
    entry: PlannedFilter, gone: Collection[str], may_lack: Collection[str]
) -> None:
    if refused := sorted(set(gone) - set(matching(may_lack, gone))):
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise _unfit(
            entry,
            f"leaves out {', '.join(refused[:3])}{more}, without which the server refuses a "
            "contribution",
            "Add them to optional_names of the job, or keep them at the sites by shared_names.",
        )


def _unfit(entry: PlannedFilter, message: str, advice: str = "") -> ConfigError:
    return ConfigError(
        [Problem(entry.location, f"{entry.settings.name}: {message}", advice, "privacy")]
    )


# --- Reading -------------------------------------------------------------------------------------


def _site_filters(privacy: Mapping[str, Any]) -> Iterator[PlannedFilter]:
    """Yield the filters of ours in the default scope, which a job of ours gets as it names none."""
    default = privacy.get("default_scope")
    for index, scope in enumerate(privacy.get("scopes", [])):
        if not default or scope.get("name") != default:
            continue
        place = Location(PRIVACY_FILE) / "scopes" / index / "task_result_filters"
        for number, entry in outgoing_filters(scope):
            path = entry.get("path")
            if isinstance(path, str) and path in SETTINGS:
                settings = filter_settings(path, entry.get("args"), place / number / "args")
                yield PlannedFilter(owner="site", location=place / number, settings=settings)


def chain_faults(job: JobDocuments) -> Iterator[Problem]:
    """Report chains of a job that NVFlare would never run, or for other tasks than it seems.

    NVFlare looks filters up by the exact name of a task, and knows no wildcard there.
    """
    for key in (RESULT_FILTERS, DATA_FILTERS):
        for chain in job.chains(key):
            if not all(task in TASKS for task in chain.tasks):
                message = (
                    f"has to list tasks of a site: {', '.join(TASKS)}; found {[*chain.tasks]!r}"
                )
                advice = "NVFlare looks up filters by the exact name of a task; '*' is none."
                yield Problem(chain.place / "tasks", message, advice, "privacy")


def job_filters(job: JobDocuments) -> Iterator[PlannedFilter]:
    """Yield the filters of ours that a job asks for.

    Raises:
        ConfigError: an argument of a filter has a fault.
    """
    for chain in job.chains(RESULT_FILTERS):
        if TRAIN in chain.tasks and is_outwards(chain.direction):
            for index, entry in enumerate(chain.filters):
                if entry.path in SETTINGS:
                    place = chain.place / "filters" / index
                    settings = filter_settings(entry.path, entry.arguments, place / "args")
                    yield PlannedFilter(owner="job", location=place, settings=settings)

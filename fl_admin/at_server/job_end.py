"""Why a job did not complete: which site, what, and what to do, in a line for each.

A server knows of a site's error one status word and a reference; the text stays at the site.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nvflare.apis.job_def import RunStatus

from fl_admin.at_server.console import FINISHED, JobState
from fl_admin.at_server.job_results import JobResults
from fl_server.record.recorder import SERVER_ENDED
from fl_server.record.values import RunRecord, SiteAbsence

ADVICE: Mapping[str, str] = {
    "policy-declined": "the site's policy does not allow it; its administrator sees which limit it "
    "is, and may raise it",
    "gate-refused": "the reply held something that may not leave the site, such as a text; its "
    "administrator looks at the site's filters",
    "config-refused": "the job's documents have faults with this site's values, or its data are "
    "missing; 'mmar site setup' there tells which",
    "data-error": "an image or label there cannot be read, or does not fit the transforms; its "
    "administrator mends the file, or takes it out of the data list",
    "weights-error": "the weights do not fit the network, or are not finite after training; a "
    "lower learning rate may help",
    "checkpoint-error": "a file of weights is missing or unreadable",
    "storage-error": "the disk of the site is full, or a folder of its kit cannot be written to",
    "out-of-memory": "take a smaller batch_size, crop or network, or ask the site for more memory",
    "component-error": "a component of the job raised an error; 'mmar simulate' with data like the "
    "site's may show it",
    "launch-error": "the site's number of processes does not fit the job or its data",
    "process-lost": "a process of the site's training was ended from outside, often for want of "
    "memory",
    "internal-error": "a fault of mmar-fl; please report it with the text of the error",
}
"""By status word: what it means and what to do."""

REFUSALS: Mapping[str, str] = {
    "code": "its administrator can look at the code and approve it: mmar site approve",
    "approval": "its administrator can look at the job and approve it: mmar site approve",
    "allow-list": "name only the components of mmar-fl and NVFlare's workflow that it uses",
    "signer": "its administrator names the people whose jobs the site takes",
    "policy": "its administrator mends the file",
    "metric-count": "name fewer metrics, or its administrator raises outgoing.max_metrics",
    "confinement": "its administrator runs: mmar site setup",
    "audit": "its administrator makes room for the log, or makes it writable",
    "data": "its administrator runs: mmar site setup",
    "environment": "its administrator runs: mmar site setup",
    "versions": "its administrator installs that, or whoever provisions changes the versions",
    "privacy": "its administrator sets up the filters that the policy asks for",
}
"""By the rule for which a site refuses a job at its door."""

MEND_THE_JOB = "mend that in the job, or ask the site's administrator what the policy allows"
REFUSED = "refused: "
FAILURE = re.compile(r"(?P<word>[a-z]+(?:-[a-z]+)+) \(reference (?P<reference>[0-9a-f]+)\)")

ENDS: Mapping[str, str] = {
    RunStatus.FINISHED_ABORTED.value: "somebody has aborted it, or the server was stopped",
    RunStatus.FINISHED_ABNORMAL.value: "a part of it has ended without a word, as a process does "
    "that is ended from outside",
    RunStatus.FINISHED_EXECUTION_EXCEPTION.value: "its server or a site's process has ended with "
    "an error that left no record; see their logs",
}
"""What is to be said of an end if nothing else is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFailure:
    """An error of a site, as far as it is known outside.

    Attributes:
        site: its name.
        word: the status word.
        reference: names the file with the error's text at the site.
        when: in which round; empty for cross-site validation.
    """

    site: str
    word: str
    reference: str
    when: str

    def __str__(self) -> str:
        advice = ADVICE.get(self.word, "see docs/look-up/federation.md")
        return (
            f"{self.site}: {self.word}{self.when}: {advice}. The text is in "
            f"error-{self.reference}.txt there."
        )


def explained_end(state: JobState, results: JobResults | None) -> str:
    """Return why a job did not complete, in one line for each thing that is known.

    Args:
        state: the finished job.
        results: what its server kept; None if it cannot be had.
    """
    head = f"{state.name} ({state.job_id}) ended as {state.status.removeprefix(FINISHED)}"
    record = None if results is None else results.record
    if record is not None:
        head += f", with {len(record.closed_rounds)} of {record.rounds_asked} rounds done"
    if state.refusals:
        reasons = list(refusal_lines(state))
    elif record is not None and record.failure == SERVER_ENDED:
        reasons = [f"server: {SERVER_ENDED}; submit the job again"]
    elif state.status == RunStatus.FINISHED_CANT_SCHEDULE.value:
        reasons = [f"the server gave up starting it: {'; '.join(state.obstacles)}"]
    else:
        reasons = list(_known(results)) if results is not None else []
        ended = (RunStatus.FINISHED_ABORTED.value, RunStatus.FINISHED_ABNORMAL.value)
        if not reasons or state.status in ended:
            reasons = [ENDS.get(state.status, "nothing more is known")]
    return "\n    ".join([head, *dict.fromkeys(reasons)])


def refusal_lines(state: JobState) -> Iterator[str]:
    """Yield a line for each site that did not take the job: why, and what to do."""
    for refusal in state.refusals:
        rule = refusal.partition(REFUSED)[2].partition(":")[0]
        yield f"{refusal}\n        What to do: {REFUSALS.get(rule, MEND_THE_JOB)}"


def _known(results: JobResults) -> Iterator[str]:
    """Yield what record and log say; the most telling of it alone."""
    record = results.record
    if record is None:
        yield from (f"server: {reason}" for reason in results.fatal[:1])
        return
    failures = [str(failure) for failure in site_failures(record)]
    yield from failures
    rejected = [
        f"{site}: its update of round {last.number} was rejected: {outcome.reason}"
        for last in record.rounds[-1:]
        for site, outcome in last.sites.items()
        if isinstance(outcome, SiteAbsence) and outcome.status == "rejected"
    ]
    yield from rejected
    if failures or rejected:
        return
    open_round = record.open_round
    if open_round is not None:
        for site in sorted(set(record.sites) - set(open_round.sites)):
            yield (
                f"{site}: had not answered in round {open_round.number}; its process may have been "
                "ended from outside, often for want of memory. Its log says more."
            )
    if record.failure:
        yield f"server: {record.failure}"


def site_failures(record: RunRecord) -> Iterator[SiteFailure]:
    """Yield the errors of sites in a record, each word of a site once."""
    seen = set()
    for failure in _all_failures(record):
        if (failure.site, failure.word) not in seen:
            seen.add((failure.site, failure.word))
            yield failure


def _all_failures(record: RunRecord) -> Iterator[SiteFailure]:
    for round_record in record.rounds:
        for site, outcome in round_record.sites.items():
            if isinstance(outcome, SiteAbsence):
                yield from _failures(outcome.reason, site, f" in round {round_record.number}")
    for sentence in (record.failure or "").split("; "):
        named = [word for word in re.split(r"[^\w.-]+", sentence) if word in record.sites]
        for site in named[:1]:  # it is about the first; a second one is a model's
            yield from _failures(sentence, site, "")


def _failures(text: str, site: str, when: str) -> Iterator[SiteFailure]:
    for match in FAILURE.finditer(text):
        yield SiteFailure(site=site, word=match["word"], reference=match["reference"], when=when)

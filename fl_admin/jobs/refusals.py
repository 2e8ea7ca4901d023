"""Refusals of a job by the default policy: which of them a site's own policy can lift."""

from __future__ import annotations

from mmar_runtime.errors import Problem
from mmar_runtime.policy.site_policy import CONSENT_RULES


def can_be_lifted(problem: Problem) -> bool:
    """Return whether a site can allow this by its policy; everything else holds at every site."""
    return problem.rule in CONSENT_RULES


def refusal_text(problem: Problem) -> str:
    """Return the warning of a refusal, for the author of a job."""
    who = "a site may refuse this" if can_be_lifted(problem) else "every site refuses this"
    return f"{who}: {problem}"

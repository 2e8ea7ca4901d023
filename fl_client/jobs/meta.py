"""``meta.json``: the job's name, its sites, and the resources that it asks each of them for.

NVFlare reads further keys there: a container's image, a command, a scope of privacy. A job has none
of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fl_client.jobs.files import META, job_problem, name_fault
from fl_client.jobs.forms import Form, mapping, number, record, several, text, unknown_keys, whole
from mmar_runtime.config.location import Location
from mmar_runtime.errors import Problem
from mmar_runtime.names import JOB_NAME, SITE_NAME

ALL_SITES = "@ALL"
MAX_SITES = 10_000

SITE = text(SITE_NAME, "a site's name of letters, digits and ._-")
RESOURCES = record(
    {
        "num_of_gpus": whole(0, 64),
        "mem_per_gpu_in_GiB": number(0, 1024),
        "num_of_cpus": whole(1, 1024),
        "memory": text(re.compile(r"[1-9][0-9]{0,5}(Mi|Gi|Ti)"), "memory such as 16Gi"),
    }
)
"""What NVFlare's resource managers and launchers take as plain amounts."""

AMOUNTS_OF = text(re.compile(rf"@default|{SITE_NAME.pattern}"), "a site's name, or @default")
META_FORMS: Mapping[str, Form] = {
    "name": text(JOB_NAME, "a name of letters, digits, blanks and ._- with at most 100 characters"),
    "min_clients": whole(1, MAX_SITES),
    "mandatory_clients": several(SITE, MAX_SITES),
    "resource_spec": mapping(AMOUNTS_OF, RESOURCES, MAX_SITES),
}
"""Each key of ``meta.json`` but ``deploy_map``."""


def meta_faults(meta: Any) -> Iterator[Problem]:
    """Yield what is wrong with a job's ``meta.json``."""
    if not isinstance(meta, dict):
        yield job_problem(META, "has to be a JSON object", "job-file")
        return
    location = Location(META)
    yield from unknown_keys(meta, (*META_FORMS, "deploy_map"), location)
    for key, form in META_FORMS.items():
        if (key in meta or key == "name") and not form.fits(meta.get(key)):
            yield Problem(location / key, f"has to be {form.text}", "", "job-file")
    apps, place = meta.get("deploy_map"), location / "deploy_map"
    if not isinstance(apps, dict) or len(apps) != 1:
        yield Problem(place, "has to name one app for all sites", "", "job-file")
        return
    [(app, sites)] = apps.items()
    if "/" in app or app in ("", ".", "..") or name_fault(app):
        yield Problem(place, "names no folder of the job", "", "job-file")
    elif sites != [ALL_SITES] and not (sites and several(SITE, MAX_SITES).fits(sites)):
        message = 'has to list the sites of the app, each once, such as ["@ALL"]'
        yield Problem(place, message, "", "job-file")


def launch_faults(meta: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield why a site launches nothing for a job whose metadata came from a server.

    NVFlare adds keys of its own to the metadata on the way, so only those that its launchers read
    are judged.
    """
    location = Location(META)
    form = META_FORMS["resource_spec"]
    if not form.fits(meta.get("resource_spec") or {}):
        yield Problem(location / "resource_spec", f"has to be {form.text}", "", "job-file")
    for key in ("launcher_spec", "scope"):
        if meta.get(key):
            message = "asks for settings that are the site's to choose"
            yield Problem(location / key, message, "Leave it out.", "job-file")

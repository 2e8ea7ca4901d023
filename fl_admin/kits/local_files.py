"""What our sites need in each kit's ``local/``, as a builder of NVFlare's provisioning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nvflare.lighter.entity import Participant
from nvflare.lighter.spec import Builder, Project, ProvisionContext

from fl_client.jobs.classes import ALLOWED_CLASSES
from fl_client.jobs.wall import LAUNCHER
from fl_client.versions import PACKAGES, VERSIONS_FILE, installed_versions
from mmar_runtime.exchange.encryption_extra import EXTRA
from mmar_runtime.files import write_json, write_text_atomically
from mmar_runtime.flare import HANDOVER
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, SITE_POLICY_FILE, policy_document

GATE = "fl_client.flare.result_gate.ResultGate"
VALIDATOR = "fl_client.flare.app_validator.MmarAppValidator"
OF_THE_SERVER = {
    "lost_jobs": "fl_server.flare.lost_jobs.LostJobs",
    "readmission": "fl_server.flare.readmission.Readmission",
}
"""Our components in the server's own process."""

STOCK_LAUNCHER = "nvflare.app_common.job_launcher.client_process_launcher.ClientProcessJobLauncher"
LOG_SENDERS = ("site_log_streamer", "log_receiver")
"""NVFlare's components that send a site's log to the server, or take it there."""

KIT_VARIABLE = "MMAR_KIT"
"""The folder of a kit, which its start script sets and the server's ``resources.json`` names."""

JSON_ONLY = "json_only"
"""Our folder, and its copy in a kit's ``startup/``: modules that stand before other parsers."""

SECONDS_WITHOUT_PROGRESS = 60.0
"""After this time without a byte a site gives a message up, and asks again; NVFlare: 5 minutes."""

SECONDS_FOR_LAST_WORDS = 20
"""So long the server waits at the end of a job for sites to report theirs; NVFlare: 15 minutes."""

SCOPE = "site"

RIGHTS = {
    "submit_job": "any",
    "clone_job": "n:submitter",
    "manage_job": "n:submitter",
    "download_job": "n:submitter",
    "view": "any",
    "app_command": "any",
    "operate": "o:site",
    "shell_commands": "none",
    "byoc": "none",
    "server-predeployed-flwr": "none",
    # What a site logs, and who sees its errors, is up to the site. NVFlare counts these among the
    # commands above; named by themselves, they win.
    "configure_job_log": "none",
    "configure_site_log": "none",
    "show_errors": "none",
}
"""Of a lead: what a job may bring is up to each site, and no console reaches a site's shell."""

AUTHORIZATION = {
    "format_version": "1.0",
    "permissions": {
        "project_admin": RIGHTS
        | {"clone_job": "any", "manage_job": "any", "download_job": "any", "operate": "any"},
        "org_admin": RIGHTS
        | {
            "submit_job": "none",
            "clone_job": "none",
            "manage_job": "o:submitter",
            "download_job": "o:submitter",
        },
        "lead": RIGHTS,
        "member": {"view": "any", "show_errors": "none"},
    },
}

PRIVACY = {
    "scopes": [
        {"name": SCOPE, "properties": {}, "task_data_filters": [], "task_result_filters": []}
    ],
    "default_scope": SCOPE,
    "components": [{"id": "result_gate", "path": GATE, "args": {}}],
}

EXAMPLE_FILTERS = [
    {"path": "fl_client.flare.privacy.ExcludeVars", "args": {"exclude_vars": ["head.*"]}},
    {
        "path": "fl_client.flare.privacy.PercentilePrivacy",
        "args": {"percentile": 10, "gamma": 0.01, "buffers": "keep"},
    },
    {
        "path": "fl_client.flare.privacy.SVTPrivacy",
        "args": {"epsilon": 0.1, "epsilon_release": 1.0, "gamma": 0.0001, "buffers": "keep"},
    },
]
"""One of each, for a site to choose from; see docs/look-up/security.md."""

ENVIRONMENT = {"DATA_ROOT": "", "DATASET_JSON": ""}
"""What a site has to fill in; until then it refuses every job."""


class MmarLocalFiles(Builder):
    """Writes our files beside NVFlare's templates. Stands after ``StaticFileBuilder``.

    Args:
        encrypts: whether the federation has keys for encryption.
    """

    def __init__(self, encrypts: bool = False) -> None:
        super().__init__()
        self.packages = (*PACKAGES, EXTRA) if encrypts else PACKAGES

    def build(self, project: Project, ctx: ProvisionContext) -> None:
        """Write the files of the server and of each site, and to all with which versions."""
        server = project.get_server()
        versions = installed_versions(self.packages)
        for participant in project.get_all_participants():
            write_json(Path(ctx.get_ws_dir(participant)) / VERSIONS_FILE, versions, private=True)
        self._common(server, ctx)
        for client in project.get_clients():
            self._common(client, ctx)
            local = Path(ctx.get_local_dir(client))
            write_json(local / "privacy.json", PRIVACY, private=True)
            write_json(local / "privacy.json.example", privacy_with(EXAMPLE_FILTERS), private=True)
            write_json(local / "environment.json", ENVIRONMENT, private=True)
            write_json(local / SITE_POLICY_FILE, policy_document(DEFAULT_POLICY), private=True)

    @staticmethod
    def _common(participant: Participant, ctx: ProvisionContext) -> None:
        local, startup = Path(ctx.get_local_dir(participant)), Path(ctx.get_kit_dir(participant))
        stock = json.loads((local / "resources.json.default").read_text(encoding="utf-8"))
        # NVFlare falls back to the second name where somebody has removed the first.
        for name, content in (
            ("resources.json", site_resources(stock)),
            ("authorization.json", AUTHORIZATION),
        ):
            write_json(local / name, content, private=True)
            write_json(local / f"{name}.default", content, private=True)
        (local / "privacy.json.sample").unlink()  # it names filters that NVFlare no longer has
        for module in Path(__file__).with_name(JSON_ONLY).glob("*.py"):
            write_text_atomically(startup / JSON_ONLY / module.name, module.read_text("utf-8"))
        script = startup / "sub_start.sh"
        script.write_text(start_script(script.read_text(encoding="utf-8")), encoding="utf-8")


def privacy_with(filters: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a site's ``privacy.json`` with filters of updates, and the gate after them."""
    document: dict[str, Any] = json.loads(json.dumps(PRIVACY))
    document["scopes"][0]["task_result_filters"] = filters
    return document


def site_resources(template: dict[str, Any]) -> dict[str, Any]:
    """NVFlare's ``resources.json`` with our classes alone, our validator, and no log on its way.

    The server's storages move from a folder that all users of a machine share into its kit.
    """
    resources = json.loads(json.dumps(template).replace("/tmp/nvflare/", f"{{${KIT_VARIABLE}}}/"))
    resources["class_allow_list"] = list(ALLOWED_CLASSES)
    resources["class_list_enforcement_mode"] = "enforce"
    resources["allow_log_streaming"] = False
    resources["app_validator"] = {"path": VALIDATOR, "args": {}}
    resources["components"] = [
        component for component in resources["components"] if component["id"] not in LOG_SENDERS
    ]
    for component in resources["components"]:
        if component["path"] == STOCK_LAUNCHER:
            component["path"] = LAUNCHER
    if "servers" in resources:
        resources["components"] += [
            {"id": name, "path": path, "args": {}} for name, path in OF_THE_SERVER.items()
        ]
    if "client" in resources:
        # All that a server is told of these settings; without it, NVFlare sends most of them.
        resources["client"]["site_config"] = {"allow_log_streaming": False}
        resources["client"]["communication_timeout"] = SECONDS_WITHOUT_PROGRESS
    return dict(resources)


def start_script(text: str) -> str:
    """NVFlare's start script with secure logging, JSON alone, and files for one user only.

    Raises:
        ValueError: the script has no place to put that.
    """
    place = 'echo "WORKSPACE set to $WORKSPACE"\n'
    if text.count(place) != 1:
        raise ValueError("NVFlare's start script is not as it was: it sets no WORKSPACE")
    lines = (
        "umask 077\n"
        "# Errors in NVFlare's logs name no values.\n"
        "export NVFLARE_SECURE_LOGGING=1\n"
        f'export {KIT_VARIABLE}="$WORKSPACE"\n'
        "# A site that is lost at the end of a job does not keep the job from its end.\n"
        f"export NVFLARE_CLIENT_OUTCOME_WAIT_TIMEOUT={SECONDS_FOR_LAST_WORDS}\n"
        f'export PYTHONPATH="$DIR/{JSON_ONLY}:$PYTHONPATH"\n'
        "# Models pass as files between the processes of a simulation alone.\n"
        f"unset {HANDOVER}\n"
    )
    return text.replace(place, place + lines)

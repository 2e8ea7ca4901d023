"""The keys in the kit of a site or a server, and whether a job can be encrypted with them.

The parent process of each site and of the server asks, so nothing here brings torch in.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvflare.apis.fl_context import FLContext
from nvflare.fuel.sec.security_content_service import LoadResult, SecurityContentManager

from fl_client.jobs.encryption import ENCRYPT, RULE
from mmar_runtime.config.location import Location
from mmar_runtime.errors import MmarError, Problem, WeightsError
from mmar_runtime.exchange.encryption_extra import MISSING_EXTRA, extra_is_installed
from mmar_runtime.exchange.job_documents import JobDocuments
from mmar_runtime.exchange.weighing import WeighBy

if TYPE_CHECKING:  # brings TenSEAL in, which only an encrypted job needs
    from mmar_runtime.exchange.ckks import Keys

PLACE = Location("config_fed_client.json") / "task_result_filters" / "encrypt_layers"

NO_KEYS = (
    "the job asks for homomorphic encryption, and this kit has no keys for it: the federation was "
    "provisioned without 'he: true'"
)


def asked_layers(fl_ctx: FLContext) -> Any:
    """Return what the running job asks its sites to encrypt; None for nothing.

    Raises:
        ConfigError: the job's documents cannot be read.
    """
    return _asked(_app(fl_ctx))


def weigh_by(fl_ctx: FLContext) -> WeighBy:
    """Return what the sites of the running job claim as their weight; raises likewise."""
    return JobDocuments.read(_app(fl_ctx)).weigh_by


def _app(fl_ctx: FLContext) -> Path:
    return Path(fl_ctx.get_engine().get_workspace().get_app_dir(fl_ctx.get_job_id()))


def _asked(app: Path) -> Any:
    return JobDocuments.read(app).filter_argument(ENCRYPT, "encrypt_layers")


def site_keys(startup: Path) -> Keys:
    """Return the keys in a site's kit, with the secret one.

    Raises:
        MmarError: the extra is not installed.
        WeightsError: there are none, they were changed, or cannot be used.
    """
    if not extra_is_installed():
        raise MmarError(MISSING_EXTRA)
    from mmar_runtime.exchange.ckks import CLIENT_CONTEXT, Keys

    return Keys(_signed(startup, CLIENT_CONTEXT), source=CLIENT_CONTEXT)


def _signed(startup: Path, name: str) -> bytes:
    """Return a file of the kit, as it was provisioned."""
    kit = SecurityContentManager(str(startup))
    content, result = kit.load_content(name)
    if not content:
        raise WeightsError(NO_KEYS)
    if kit.valid_config and result != LoadResult.OK:
        raise WeightsError(f"{name} is not as it was provisioned: {result.value}")
    return bytes(content)


def ability_faults(app: Path, startup: Path) -> Iterator[Problem]:
    """Yield why what a job asks to encrypt cannot be encrypted here: a site or a server.

    Args:
        app: the job's app.
        startup: the folder of the kit with the keys.

    Raises:
        ConfigError: the job's documents cannot be read.
    """
    if _asked(app) is None:
        return
    message = MISSING_EXTRA
    if extra_is_installed():
        from mmar_runtime.exchange.ckks import CLIENT_CONTEXT, SERVER_CONTEXT, Keys

        is_server = (startup / SERVER_CONTEXT).is_file() and not (
            startup / CLIENT_CONTEXT
        ).is_file()
        try:
            name = SERVER_CONTEXT if is_server else CLIENT_CONTEXT
            Keys(_signed(startup, name), source=name)
            return
        except WeightsError as error:
            message = str(error)
    yield Problem(PLACE, message, "", RULE)

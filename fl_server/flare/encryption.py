"""The keys of an encrypted job, from the server's start-up kit."""

from __future__ import annotations

from pathlib import Path

from nvflare.fuel.sec.security_content_service import LoadResult, SecurityContentManager

from fl_server.encryption import ServerEncryption
from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.encryption import layout_of
from mmar_runtime.exchange.encryption_extra import MISSING_EXTRA, extra_is_installed
from mmar_runtime.exchange.job_documents import FEDERATION_ARGUMENTS
from mmar_runtime.weights import Weights

PLACE = FEDERATION_ARGUMENTS / "encrypt_layers"


def server_encryption(startup: Path, weights: Weights, patterns: list[str]) -> ServerEncryption:
    """Return what the server has of an encrypted job.

    Args:
        startup: the folder of the kit with keys and signatures.
        weights: of the network.
        patterns: the job's ``encrypt_layers``.

    Raises:
        ConfigError: a pattern fits nothing.
        FederationError: the extra, or the keys, are not there.
        WeightsError: the keys cannot be used.
    """
    layout = layout_of(weights, patterns, PLACE)
    if not extra_is_installed():
        raise FederationError(MISSING_EXTRA)
    from mmar_runtime.exchange.ckks import SERVER_CONTEXT, Keys

    kit = SecurityContentManager(str(startup))
    content, result = kit.load_content(SERVER_CONTEXT)
    if not content:
        raise FederationError(
            f"the kit of this server has no {SERVER_CONTEXT}: the federation was provisioned "
            "without 'he: true'"
        )
    if kit.valid_config and result != LoadResult.OK:
        raise FederationError(f"{SERVER_CONTEXT} is not as it was provisioned: {result.value}")
    return ServerEncryption(layout=layout, keys=Keys(content, source=SERVER_CONTEXT))

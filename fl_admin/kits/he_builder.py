"""Keys for homomorphic encryption in start-up kits; importing this needs the extra ``he``."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import tenseal
from nvflare.lighter.constants import CtxKey, ProvFileName
from nvflare.lighter.impl.he import HEBuilder
from nvflare.lighter.spec import Builder, Project, ProvisionContext
from nvflare.lighter.utils import sign_folders

from mmar_runtime.exchange.ckks import COEFF_MOD_BIT_SIZES, POLY_MODULUS_DEGREE, SCALE_BITS, Keys
from mmar_runtime.files import write_text_atomically

STATE = "he_keys.json"
"""Beside the authority's own key, so that a site that joins later gets the same keys."""


class FederationKeys(HEBuilder):
    """NVFlare's builder, but the keys of the first time are kept and given out again."""

    def __init__(self) -> None:
        super().__init__(
            poly_modulus_degree=POLY_MODULUS_DEGREE,
            coeff_mod_bit_sizes=list(COEFF_MOD_BIT_SIZES),
            scale_bits=SCALE_BITS,
        )

    def initialize(self, project: Project, ctx: ProvisionContext) -> None:
        """Read the keys of this federation, or draw them and keep them."""
        path = Path(ctx.get_state_dir()) / STATE
        if path.is_file():
            content = base64.b64decode(json.loads(path.read_text(encoding="utf-8"))["client"])
            Keys(content, source=STATE)  # raises where they are not of this version
            self._context = tenseal.context_from(content)
            return
        super().initialize(project, ctx)
        content = self.get_serialized_context(is_client=True)
        write_text_atomically(path, json.dumps({"client": base64.b64encode(content).decode()}))


class StartupSignatures(Builder):
    """Signs ``startup/`` of each kit that holds such keys, by which a changed file is noticed.

    Stands last. NVFlare's own builder signs ``local/`` as well, which is the site's to change.
    """

    def build(self, project: Project, ctx: ProvisionContext) -> None:
        """Write ``signature.json`` into the folders."""
        for participant in (project.get_server(), *project.get_clients()):
            sign_folders(
                ctx.get_kit_dir(participant),
                ctx[CtxKey.ROOT_PRI_KEY],
                signature_file=ProvFileName.SIGNATURE_JSON,
            )


def new_keys() -> tuple[bytes, bytes]:
    """Keys for a site and for a server, as they lie in their kits; for one run on one machine."""
    builder = HEBuilder(POLY_MODULUS_DEGREE, list(COEFF_MOD_BIT_SIZES), SCALE_BITS)
    builder.initialize(None, None)
    return builder.get_serialized_context(is_client=True), builder.get_serialized_context()

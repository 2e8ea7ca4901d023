"""Which global models are evaluated at every site: the last one and the best one."""

from __future__ import annotations

from nvflare.apis.dxo import DXO
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model_locator import ModelLocator

from fl_server.cross_site import BEST_GLOBAL_MODEL, GLOBAL_MODEL
from fl_server.flare.exchange import weights_dxo


class MmarModelLocator(ModelLocator):
    """Finds the server's models for cross-site validation.

    Args:
        persistor_id: the component that wrote them.
    """

    def __init__(self, persistor_id: str = "persistor") -> None:
        super().__init__()
        self.persistor_id = persistor_id

    def get_model_names(self, fl_ctx: FLContext) -> list[str]:
        """The names of both."""
        return [GLOBAL_MODEL, BEST_GLOBAL_MODEL]

    def locate_model(self, model_name: str, fl_ctx: FLContext) -> DXO:
        """One of them."""
        persistor = fl_ctx.get_engine().get_component(self.persistor_id)
        return weights_dxo(persistor.read(model_name, fl_ctx))

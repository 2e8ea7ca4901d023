"""Which models of the server are evaluated at every site."""

from __future__ import annotations

from nvflare.apis.dxo import DXO
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model_locator import ModelLocator

from fl_server.flare.exchange import weights_dxo
from fl_server.flare.persistor import MmarModelPersistor
from mmar_runtime.errors import FederationError


class MmarModelLocator(ModelLocator):
    """Finds the server's models for cross-site validation.

    Args:
        persistor_id: the component that holds them.
    """

    def __init__(self, persistor_id: str = "persistor") -> None:
        super().__init__()
        self.persistor_id = persistor_id

    def get_model_names(self, fl_ctx: FLContext) -> list[str]:
        """The names of all of them: the last and the best global model, or those of the job."""
        return list(self._persistor(fl_ctx).model_names)

    def locate_model(self, model_name: str, fl_ctx: FLContext) -> DXO:
        """One of them."""
        return weights_dxo(self._persistor(fl_ctx).read(model_name, fl_ctx))

    def _persistor(self, fl_ctx: FLContext) -> MmarModelPersistor:
        persistor = fl_ctx.get_engine().get_component(self.persistor_id)
        if not isinstance(persistor, MmarModelPersistor):
            raise FederationError(f"the component {self.persistor_id!r} is no MmarModelPersistor")
        return persistor

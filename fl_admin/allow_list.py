"""The classes that a site allows a job's NVFlare configs to name: exact, no prefixes."""

from __future__ import annotations

ALLOWED_CLASSES = (
    "fl_client.flare.executor.MmarExecutor",
    "fl_server.flare.aggregator.MmarAggregator",
    "fl_server.flare.last_model.ScoreLastModel",
    "fl_server.flare.model_locator.MmarModelLocator",
    "fl_server.flare.persistor.MmarModelPersistor",
    "fl_server.flare.publish.PublishResults",
    "fl_server.flare.run_recorder.RunRecordKeeper",
    "nvflare.app_common.shareablegenerators.full_model_shareable_generator"
    ".FullModelShareableGenerator",
    "nvflare.app_common.workflows.cross_site_model_eval.CrossSiteModelEval",
    "nvflare.app_common.workflows.scatter_and_gather.ScatterAndGather",
)

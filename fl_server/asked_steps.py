"""How many optimizer steps a job asks of its sites in a round."""

from __future__ import annotations

from mmar_runtime.config.sources import read_json
from mmar_runtime.mmar import Mmar

CLIENT_CONFIG = "config_fed_client.json"
EXECUTOR = "fl_client.flare.executor.MmarExecutor"


def asked_steps(mmar: Mmar) -> int:
    """The steps of a round; 0 where a round has epochs, or another executor than ours.

    Args:
        mmar: of a job whose documents have been judged.

    Raises:
        ConfigError: the document is not JSON.
    """
    path = mmar.document(CLIENT_CONFIG)
    document = read_json(path) if path.is_file() else {}
    for one in document.get("executors", []):
        executor = one.get("executor", {})
        if executor.get("path") == EXECUTOR:
            steps = executor.get("args", {}).get("steps_aggregation", 0)
            return int(document[steps.strip("{}")] if type(steps) is str else steps)
    return 0

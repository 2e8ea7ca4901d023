"""How many optimizer steps a job asks of its sites in a round."""

from __future__ import annotations

from pathlib import Path

from mmar_runtime.exchange.flare_documents import CLIENT_CONFIG, own_value, read_flare_document

EXECUTOR = "fl_client.flare.executor.MmarExecutor"


def asked_steps(app: Path) -> int:
    """The steps of a round; 0 where a round has epochs, or another executor than ours.

    Args:
        app: of a job whose documents have been judged.

    Raises:
        ConfigError: the document is not JSON.
    """
    document = read_flare_document(app, CLIENT_CONFIG)
    for one in document.get("executors", []):
        executor = one.get("executor", {})
        if executor.get("path") == EXECUTOR:
            return int(own_value(executor.get("args", {}).get("steps_aggregation", 0), document))
    return 0

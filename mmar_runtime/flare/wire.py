"""Names by which server and site find our values in NVFlare's messages."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nvflare.apis.dxo import MetaKey
from nvflare.apis.fl_constant import ReturnCode

WAKE_TOPIC = "mmar.task_ready"
"""The message by which a server wakes its sites."""

RECORD_TOPIC = "mmar.run_record"
"""The command by which an admin asks a running job for its record."""

# --- a task

AGGREGATION_WEIGHTS = "mmar_aggregation_weights"
"""The header of an encrypted job's task that maps a site to the factor of its claim."""

BASE_MODEL = "mmar_base_model"
"""The cookie by which a reply says to which global model it is a difference."""

NOT_DECRYPTED = "mmar_not_decrypted"
"""The header, inside of the site, that says why an encrypted model cannot be read."""

SERVERS_OWN = "SRV_"
"""What NVFlare puts in front of the names of the server's models."""

# --- a reply

SAMPLES = "mmar_samples"
"""The metadata key of the items that a site drew from its training data in the round."""

EPOCH_SAMPLES = "mmar_epoch_samples"
"""The metadata key of the items that a site draws in an epoch."""

REPORT = "mmar_report"
"""The metadata key of an update's report on its round."""

CASES = "mmar_cases"
"""The metadata key of the number of cases that metrics were computed on."""

STATUS = "mmar_status"
"""The header of a failed reply's status word."""

LOGS = "mmar_logs"
"""The header of the heads of the site's logs."""

META_NAMES: Mapping[str, str] = MappingProxyType(
    {
        MetaKey.NUM_STEPS_CURRENT_ROUND: "steps",
        SAMPLES: "samples",
        EPOCH_SAMPLES: "epoch_samples",
        MetaKey.FILTER_HISTORY: "filter_history",
        REPORT: "report",
        CASES: "cases",
        "round": "model_round",
        "metrics": "metrics",
    }
)
"""Metadata key of a DXO -> its name in the closed list, see ``mmar_runtime.exchange.messages``."""

RETURN_CODES = frozenset(
    value for name, value in vars(ReturnCode).items() if name.isupper() and isinstance(value, str)
)

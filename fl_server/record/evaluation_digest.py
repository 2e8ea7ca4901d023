"""How a job evaluates models at every site, as one digest; where it differs, so may the numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from mmar_runtime.config.loader import CROSS_VALIDATION_FILE, ENVIRONMENT_FILE, SETTINGS
from mmar_runtime.config.sources import first_level_primitives, read_json
from mmar_runtime.config.variables import names_in
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.custom_check import code_hash
from mmar_runtime.policy.mmar_check import SITE_VARIABLES


def evaluation_digest(mmar: Mmar, *, shared_names: Sequence[str] | None = None) -> str:
    """SHA-256 over all in a job that the numbers of its matrix depend on beside model and data.

    This is ``config_cross_validation.json`` with the values that the job's ``environment.json``
    gives it, the MMAR's own code, and the names of the tensors that the sites share. Spaces and the
    order of keys do not count, and neither do a site's own values, nor ``DATA_ROOT`` and
    ``DATASET_JSON``, which are always a site's.

    Raises:
        ConfigError: a document is missing or is no JSON, or the code holds a link.
    """
    document = read_json(mmar.root / CROSS_VALIDATION_FILE)
    path = mmar.root / ENVIRONMENT_FILE
    environment = read_json(path) if path.is_file() else {}
    asked = {*names_in(json.dumps(document)), *first_level_primitives(document), *SETTINGS}
    names = (asked & environment.keys()) - SITE_VARIABLES.keys()
    content = {
        "document": document,
        "values": {name: environment[name] for name in names},
        "code": code_hash(mmar.custom) if mmar.custom.is_dir() else None,
        "shared_names": None if shared_names is None else list(shared_names),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

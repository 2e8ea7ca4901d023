"""Old documents -> today's: the 4.0 dialect -> 4.1, and MONAI's changes since.

``upgrade_document`` works on the JSON values themselves, so the run and
``mmar upgrade --write`` use the same document.
"""

from mmar_runtime.config.upgrades.document import Notice, Upgrade, upgrade_document

__all__ = ["Notice", "Upgrade", "upgrade_document"]

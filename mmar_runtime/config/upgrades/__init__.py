"""Old documents -> today's: the 4.0 dialect -> 4.1, and what MONAI has changed since.

``upgrade_document`` works on the JSON values themselves, so what runs in memory and what
``mmar upgrade --write`` puts on disk is one and the same.
"""

from mmar_runtime.config.upgrades.document import Notice, Upgrade, upgrade_document

__all__ = ["Notice", "Upgrade", "upgrade_document"]

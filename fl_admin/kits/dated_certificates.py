"""NVFlare's certificates of a federation, for as many days as its project says.

NVFlare gives a kit 360 days and its authority as many, so that no kit could outlive the first day's
authority and each renewal would mean a new federation. Here the authority lasts longer than kits.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from nvflare.lighter.constants import CtxKey, ParticipantType, PropKey
from nvflare.lighter.entity import Participant
from nvflare.lighter.impl.cert import CertBuilder
from nvflare.lighter.spec import Project, ProvisionContext
from nvflare.lighter.utils import Identity, generate_cert, generate_keys

from mmar_runtime.files import write_text_atomically

VALID_DAYS = "valid_days"
DEFAULT_DAYS = 360
AUTHORITY_DAYS = 3650
"""Of a new authority, and the most that a kit can have."""

STATE_FILE = "cert.json"
"""Where NVFlare keeps the authority and every certificate that it has issued."""


class DatedCertificates(CertBuilder):
    """NVFlare's ``CertBuilder``; the project's ``valid_days`` is how long a new kit is good."""

    def __init__(self) -> None:
        super().__init__(root_valid_days=AUTHORITY_DAYS)
        self._days = DEFAULT_DAYS

    def initialize(self, project: Project, ctx: ProvisionContext) -> None:
        """Find the authority of an earlier time, if there is one."""
        self._days = project.get_prop(VALID_DAYS, DEFAULT_DAYS)
        # NVFlare refuses an authority with other days than it would give a new one.
        self.root_valid_days = authority_days(Path(ctx.get_state_dir())) or AUTHORITY_DAYS
        super().initialize(project, ctx)

    def get_pri_key_cert(self, participant: Participant) -> tuple[Any, x509.Certificate]:
        """Return a new key and its certificate; it ends with the authority's at the latest.

        Raises:
            RuntimeError: the authority's has ended.
        """
        now, last = datetime.now(UTC), self.root_cert.not_valid_after_utc
        if last <= now:
            raise RuntimeError(
                f"the authority of this federation expired on {last:%Y-%m-%d}; provision into "
                "another folder, and give everybody a new kit"
            )
        is_admin = participant.type == ParticipantType.ADMIN
        is_server = participant.type == ParticipantType.SERVER
        key, public_key = generate_keys()
        certificate = generate_cert(
            Identity(
                participant.subject,
                participant.org,
                participant.get_prop(PropKey.ROLE) if is_admin else None,
            ),
            Identity(self.issuer),
            self.pri_key,
            public_key,
            server_default_host=participant.get_default_host() if is_server else None,
            server_additional_hosts=participant.get_prop(PropKey.HOST_NAMES) if is_server else None,
            not_valid_before=now,
            not_valid_after=min(last, now + timedelta(days=self._days)),
        )
        return key, certificate


def authority_days(state: Path) -> int | None:
    """Return for how many days the authority in a folder was made; None if there is none."""
    file = state / STATE_FILE
    if not file.is_file():
        return None
    text = json.loads(file.read_text("utf-8"))[CtxKey.ROOT_CERT]
    root = x509.load_pem_x509_certificate(text.encode())
    return (root.not_valid_after_utc - root.not_valid_before_utc).days


def forget(state: Path, names: Collection[str]) -> None:
    """Have the next provisioning issue new certificates to some participants."""
    file = state / STATE_FILE
    kept = json.loads(file.read_text("utf-8"))
    content = {name: entry for name, entry in kept.items() if name not in names}
    write_text_atomically(file, json.dumps(content))

"""Keys of a simulated federation, and an encrypted model made readable with a site's keys."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from fl_client.flare.encryption import decrypted
from fl_client.flare.encryption_keys import site_keys
from mmar_runtime.errors import MmarError
from mmar_runtime.exchange.encrypted_files import SUFFIX, read_encrypted_model
from mmar_runtime.weights import write_checkpoint


def write_simulation_keys(startup: Path) -> None:
    """Put new keys where NVFlare's simulator copies them to the server and to each site from.

    Args:
        startup: the folder; made if it is not there.
    """
    from fl_admin.kits.he_builder import new_keys
    from mmar_runtime.exchange.ckks import CLIENT_CONTEXT, SERVER_CONTEXT

    startup.mkdir(parents=True, exist_ok=True)
    for name, content in zip((CLIENT_CONTEXT, SERVER_CONTEXT), new_keys(), strict=True):
        descriptor = os.open(startup / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)


def decrypt_model(kit: Path, model: Path, out: Path) -> int:
    """Write an encrypted model as an ordinary checkpoint; returns how many tensors it has.

    Args:
        kit: of a site, with the secret key in ``startup/``.
        model: a file as a server writes it.
        out: becomes the checkpoint, ``.pt``.

    Raises:
        MmarError: ``out`` is taken, the kit has no keys, or they are not those of the model.
    """
    if os.path.lexists(out):
        raise MmarError(f"{str(out)!r} is there already; name another file with --out")
    if out.suffix != ".pt":
        raise MmarError(f"--out has to end in .pt, found {out.name!r}")
    if not model.name.endswith(SUFFIX):
        raise MmarError(f"an encrypted model is called ...{SUFFIX}, found {model.name!r}")
    content = read_encrypted_model(model)
    arrays = {name: tensor.numpy() for name, tensor in content.weights.items()}
    weights = decrypted(arrays, site_keys(kit / "startup"))
    tensors = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    write_checkpoint(out, tensors, content.train_conf or {})
    return len(tensors)

"""The machine that a kit runs on: disk, memory, processors, and the server's port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from importlib.metadata import version

import psutil

from fl_admin.kits.setup.certificates import load_certificate
from fl_admin.kits.setup.connection import presented_certificate
from fl_admin.kits.setup.finding import Finding, fault, ok, warning
from fl_admin.kits.setup.kit import Kit
from mmar_runtime.confinement.wall import kernel_wall
from mmar_runtime.policy.site_policy import SitePolicy

GIB = 2**30
LEAST_DISK, SPARSE_DISK = 1 * GIB, 10 * GIB
SPARSE_MEMORY = 4 * GIB
LOOPBACK = ("localhost", "127.0.0.1", "::1")
NEWER_KERNEL = "run a newer kernel, or the site in a container"
SMI = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")


def check_disk(kit: Kit) -> Finding:
    """Check whether there is room for the models of runs."""
    free = shutil.disk_usage(kit.folder).free
    message = f"{free / GIB:.1f} GiB free at {kit.folder}"
    if free < LEAST_DISK:
        return fault("disk", message, "make room; runs, models and logs are kept in the kit")
    if free < SPARSE_DISK:
        return warning("disk", message, "models and their checkpoints of some jobs need more")
    return ok("disk", message)


def check_memory() -> Finding:
    """Check how much memory a training finds."""
    memory = psutil.virtual_memory()
    message = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    if memory.available < SPARSE_MEMORY:
        return warning("memory", message, "3D volumes and their cache need more")
    return ok("memory", message)


def check_confinement(policy: SitePolicy | None) -> Finding:
    """Check what this machine's kernel forbids the process of a job, and whether that is enough."""
    wall, mode = kernel_wall(), "preferred" if policy is None else policy.confinement
    if mode == "off":
        advice = "take confinement out of the policy, unless something of the site needs it off"
        return warning("confinement", f"off by the policy; this kernel would give: {wall}", advice)
    if wall.stands:
        return ok("confinement", str(wall))
    if mode == "required":
        advice = "run a newer kernel; in a container the kernel is the host's"
        return fault("confinement", f"{wall}; policy 'required' refuses jobs", advice)
    return warning("confinement", str(wall), NEWER_KERNEL)


def check_gpu(seconds: float) -> Finding:
    """Check which GPUs there are, without loading torch."""
    cores = f"{os.cpu_count()} cores"
    if shutil.which(SMI[0]) is None:
        return ok("gpu", f"no GPU: training runs on the CPU, {cores}")
    try:
        done = subprocess.run(SMI, capture_output=True, text=True, timeout=seconds, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        message = f"nvidia-smi does not say which GPUs there are: {type(error).__name__}"
        return warning(
            "gpu", message, "see what 'nvidia-smi' prints; without a GPU the CPU is used"
        )
    names = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if not names:
        return ok("gpu", f"no GPU: training runs on the CPU, {cores}")
    if version("torch").endswith("+cpu"):
        message = f"{'; '.join(names)}; torch is built for the CPU and uses none of them"
        return warning("gpu", message, "install torch for CUDA, of the same version")
    return ok("gpu", f"{'; '.join(names)}; {cores}")


def check_port(kit: Kit, seconds: float) -> Finding:
    """Check whether a server's port is free, or this server listens there already."""
    host = "127.0.0.1"
    try:
        presented = presented_certificate(host, kit.port, seconds)
    except OSError:
        return _free(kit)
    if presented == load_certificate(kit.certificate):
        return ok("port", f"this server listens at {kit.port}")
    message = f"another program listens at {kit.port}"
    return fault(
        "port", message, f"end it, or provision another port; 'ss -tlnp sport = {kit.port}'"
    )


def _free(kit: Kit) -> Finding:
    """Nobody answers there; but may this user listen?"""
    place = "127.0.0.1" if kit.host in LOOPBACK else ""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((place, kit.port))
        except OSError as error:
            message = f"this user cannot listen at {kit.port}: {error.strerror}"
            return fault("port", message, "a port below 1024 needs a right; provision a higher one")
    where = "this machine only" if place else "all its addresses"
    return ok("port", f"{kit.port} is free; the server will listen to {where}")

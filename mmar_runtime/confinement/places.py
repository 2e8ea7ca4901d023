"""The paths and the environment that a process needs to run a job."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")

SYSTEM = tuple(
    map(
        Path,
        (
            # Libraries, time zones, fonts of a distribution.
            *("/usr/lib", "/usr/lib32", "/usr/lib64", "/lib", "/lib32", "/lib64"),
            *("/usr/share", "/usr/local/lib", "/usr/local/share"),
            *("/usr/local/cuda", "/opt/rocm"),
            # The places of libraries, and how names become addresses.
            *("/etc/ld.so.cache", "/etc/nsswitch.conf", "/etc/hosts", "/etc/host.conf"),
            *("/etc/gai.conf", "/etc/resolv.conf", "/etc/localtime", "/etc/mime.types"),
            *("/etc/ssl/openssl.cnf", "/etc/fonts", "/etc/OpenCL", "/etc/vulkan"),
            # Processors, memory and this process. Of other processes, nothing.
            *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/devices"),
            *("/proc/filesystems", "/proc/version", "/proc/sys/vm", "/proc/driver/nvidia"),
            *("/proc/sys/kernel", "/sys"),
            *("/dev/urandom", "/dev/random"),
        ),
    )
)

GPU_DEVICES = ("nvidia*", "dri", "kfd")

LOADER_FOLDERS = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")
"""Where the loader of a program's libraries is; shells are elsewhere."""

VARIABLES = frozenset(
    (
        *("PATH", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "TERM", "COLUMNS", "NO_COLOR"),
        *("VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD", "GLIBC_TUNABLES"),
        *("PYTHONPATH", "PYTHONHOME", "PYTHONUNBUFFERED", "PYTHONHASHSEED", "PYTHONWARNINGS"),
        *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK"),
        *("MASTER_ADDR", "MASTER_PORT"),
    )
)
PREFIXES = (
    *("LC_", "MMAR_", "NVFLARE_", "PYTORCH_", "TORCHELASTIC_", "CUDA_", "CUBLAS_", "CUDNN_"),
    *("NVIDIA_", "HIP_", "ROCR_", "HSA_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_"),
    *("NUMEXPR_", "NCCL_", "GLOO_", "MALLOC_", "GRPC_"),
)

EGRESS_PREFIXES = (
    *("MLFLOW_", "CLEARML_", "REQUESTS_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "no_proxy"),
)
"""Variables that name a tracker's server, for a site that lets a job send to other machines."""

FOLDERS = {"HOME": "home", "XDG_CACHE_HOME": "home/.cache", "XDG_CONFIG_HOME": "home/.config"}
"""Where libraries keep caches and settings, below the scratch folder of a run."""

FONTS = "matplotlib/fontlist-*.json"
"""Files in a folder of caches that take seconds to make; imports of MONAI's plots need them."""

TEMPORARY = "tmp"


def runtime_folders() -> Iterator[Path]:
    """Yield the files and folders that the interpreter, its packages and libraries need."""
    yield from SYSTEM
    yield from _existing((sys.prefix, sys.base_prefix, *sys.path))
    yield from _existing(os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))


def devices() -> Iterator[Path]:
    """Yield the devices that a job may read, write and control: GPUs and ``/dev/null``."""
    yield from (Path("/dev/null"), Path("/dev/zero"))
    for pattern in GPU_DEVICES:
        yield from Path("/dev").glob(pattern)


def interpreter() -> Iterator[Path]:
    """Yield the files that a new interpreter executes: itself and its loader."""
    yield from _existing((sys.executable, *LOADER_FOLDERS))


def job_environment(
    environment: Mapping[str, str], scratch: Path, *, egress: bool = False
) -> dict[str, str]:
    """Return the variables that the process of a job gets; doing it twice changes nothing more.

    Args:
        environment: of the process that starts it. Only variables that are needed are taken.
        scratch: a folder of the run's own; caches, temporary files and the home folder are there.
        egress: whether the job may send to other machines.
    """
    prefixes = PREFIXES + EGRESS_PREFIXES if egress else PREFIXES
    kept = {
        name: value
        for name, value in environment.items()
        if name in VARIABLES or name.startswith(prefixes)
    }
    folders = {name: str(scratch / folder) for name, folder in FOLDERS.items()}
    temporary = str(_short_name(scratch))
    if "PYTHONPATH" in kept:
        # An empty or relative entry means the working directory of the moment.
        entries = kept["PYTHONPATH"].split(os.pathsep)
        kept["PYTHONPATH"] = os.pathsep.join(filter(os.path.isabs, entries))
    fixed = {"TMPDIR": temporary, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**kept, **folders, **fixed}


def make_scratch(scratch: Path) -> None:
    """Make the folders that ``job_environment`` names.

    Raises:
        OSError: another user has taken the short name of the folder.
    """
    for folder in (*FOLDERS.values(), TEMPORARY):
        (scratch / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    fonts = scratch / FOLDERS["XDG_CACHE_HOME"] / "matplotlib"
    fonts.mkdir(exist_ok=True)
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for cache in caches.glob(FONTS):
        shutil.copyfile(cache, fonts / cache.name)
    name, target = _short_name(scratch), scratch.resolve() / TEMPORARY
    if name.is_symlink() and name.lstat().st_uid == os.geteuid():
        name.unlink()
    name.symlink_to(target)


def remove_scratch(scratch: Path) -> None:
    """Remove the link and the folder of ``make_scratch``."""
    _short_name(scratch).unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)


def _short_name(scratch: Path) -> Path:
    """Return a link to the folder of temporary files.

    Data loaders name sockets in it, and the kernel takes no such name of more than 107 bytes.
    """
    digest = hashlib.sha256(os.fsencode(scratch.resolve())).hexdigest()
    return SHARED_MEMORY / f"mmar-{digest[:16]}"


def _existing(places: Iterable[str]) -> Iterator[Path]:
    yield from (Path(place) for place in places if place and os.path.exists(place))

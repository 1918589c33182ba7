"""What this machine is good at: device, precision, memory. Chosen once, printed, and every choice can be overridden."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from whatwhere.errors import PlanError

__all__ = [
    "Machine",
    "Precision",
    "available_memory",
    "hand_back_freed_memory",
    "keep_freed_memory",
    "layout",
    "measuring_machine",
    "prepare_torch",
    "probe_machine",
]

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Machine:
    """Where the network runs.

    Attributes:
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        name: the processor's own name.
        cores: processor threads this process may use.
        memory: bytes of memory of the device.
        dtype: what convolutions compute in.
        reason: why that precision.
        multiprocessors: of a CUDA GPU; 1 of anything else.
    """

    device: str
    name: str
    cores: int
    memory: int
    dtype: torch.dtype
    reason: str
    multiprocessors: int = 1

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        return f"{self.name}, {self.cores} cores, {self.memory / 2**30:.0f} GiB; {self.precision} ({self.reason})"


def layout(device: str) -> torch.memory_format:
    """In what order a network's numbers lie: channels last, but not on Apple's GPUs, where torch has got it wrong."""
    return torch.contiguous_format if device.startswith("mps") else torch.channels_last


def probe_machine(device: str = "auto", precision: Precision = "auto") -> Machine:
    """Looks at the machine; ``device`` and ``precision`` override what it would choose."""
    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    if not re.fullmatch(r"cpu|(cuda|mps)(:\d+)?", device):
        raise PlanError(f"device is {device!r}", "'auto', 'cpu', 'cuda' or 'mps'", "leave it at 'auto' if unsure")
    if device.partition(":")[0] == "mps" and not torch.backends.mps.is_available():
        raise PlanError("device is 'mps'", "a device of this machine", "use 'cpu': torch sees no Apple GPU here")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise PlanError("device is 'cuda'", "a device of this machine", "use 'cpu': torch sees no CUDA device here")
    if device.startswith("cuda:") and int(device.removeprefix("cuda:") or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise PlanError(f"device is {device!r}", "a device of this machine", f"torch sees {count} here, from cuda:0 on")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    dtype, reason = _precision(device, precision)
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(torch.device(device))
        units = properties.multi_processor_count
        return Machine(device, properties.name, cores, properties.total_memory, dtype, reason, units)
    return Machine(device, _processor_name(), cores, _memory(), dtype, reason)


def measuring_machine() -> Machine:
    """The machine that measurements are made on: this one, but its CPU where the GPU has no double precision (MPS)."""
    machine = probe_machine()
    return probe_machine("cpu") if machine.device == "mps" else machine


def _precision(device: str, precision: Precision) -> tuple[torch.dtype, str]:
    if precision not in ("auto", "float32", "bfloat16"):
        raise PlanError(
            f"precision is {precision!r}", "'auto', 'float32' or 'bfloat16'", "leave it at 'auto' if unsure"
        )
    if precision != "auto":
        return getattr(torch, precision), "as asked"
    if device.startswith("cuda"):
        with torch.cuda.device(torch.device(device)):  # torch looks at the current one
            supported = torch.cuda.is_bf16_supported(including_emulation=False)
        if supported:
            return torch.bfloat16, "the GPU has tensor cores for it"
        return torch.float32, "the GPU has no bfloat16 units"
    if device.startswith("cpu") and torch.cpu._is_amx_tile_supported():
        return torch.bfloat16, "the processor has matrix units for it (AMX)"
    if (
        device.startswith("cpu") and torch.cpu._is_avx512_bf16_supported()
    ):  # measured: twice as fast as float32, see RESULTS
        return torch.bfloat16, "the processor multiplies it at twice the rate of float32 (AVX-512)"
    return torch.float32, "this processor has no bfloat16 arithmetic"


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:  # noqa: PTH123 (a device, not a path of the user's)
            for line in info:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux: the platform's own name will do
    return platform.processor() or platform.machine()


_CONTAINERS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Where a container's own limit stands and what is used of it (cgroups 2 and 1); of that, files can be dropped."""


def _memory() -> int:
    """Bytes of the machine, or of the container if it has less."""
    whole = 8 * 2**30
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([whole, *(limit for limit, _ in _containers())])


def available_memory() -> int:
    """Bytes that could be used now, of the machine or of the container if that has less left."""
    free = _memory() // 2
    with suppress(OSError, ValueError, KeyError):  # not Linux
        free = 1024 * _numbers(Path("/proc/meminfo"))["MemAvailable:"]
    return min([free, *(max(0, limit - used) for limit, used in _containers())])


def _containers() -> Iterator[tuple[int, int]]:
    """Limit and use in bytes of each container that has a limit."""
    for folder, limit, used, files in _CONTAINERS:
        with suppress(OSError, ValueError):  # not there, or "max"
            most, now = int((folder / limit).read_text()), 0
            with suppress(OSError, ValueError, KeyError):  # some containers tell the limit alone
                now = int((folder / used).read_text()) - _numbers(folder / "memory.stat")[files]
            yield most, now


def _numbers(path: Path) -> dict[str, int]:
    lines = (line.split() for line in path.read_text().splitlines())
    return {name: int(number) for name, number, *_ in lines}


def prepare_torch() -> None:
    """What all that computes begins with: freed memory is kept, and what a GPU computes is exact and comes out alike.

    There float32, the measure of all else, would be TF32, which has 10 bits, and gradients would differ between runs.
    """
    keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def keep_freed_memory() -> bool:
    """Tells the C library to keep freed memory instead of handing it back to the system.

    A network frees and takes the same large blocks at every step; by default glibc maps and zeroes them anew each time,
    which cost 20 to 90 % of the time of a forward pass where it was measured. Returns whether it could be set.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        trim_threshold, mmap_threshold, mmap_max = -1, -3, -4
        return bool(
            libc.mallopt(mmap_max, 0)
            and libc.mallopt(trim_threshold, 2**31 - 1)
            and libc.mallopt(mmap_threshold, 2**30)
        )
    except (OSError, AttributeError):
        return False


def hand_back_freed_memory() -> None:
    """Gives the system back what `keep_freed_memory` has kept so far, once, when it will not be needed again."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another C library: then nothing was kept either
            ctypes.CDLL(None).malloc_trim(0)

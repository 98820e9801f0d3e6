"""What this machine can do, and the settings that make it quick."""

import ctypes
import os
import sys
from contextlib import suppress

import torch

from unclip.errors import UnclipError


def best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # torchrun says which is whose
    return torch.device("cpu")  # mps lacks float64, which the schedules are kept in


def pick_device(name: str | torch.device | None) -> torch.device:
    """The device of that name, the best one for None. Raises UnclipError when it cannot be used here."""
    try:
        device = torch.device(name or best_device())
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as e:
        reason, usable = str(e).splitlines()[0], "cpu, cuda" if torch.cuda.is_available() else "cpu"
        raise UnclipError(f"device {str(name)!r} cannot be used here: {reason}; usable: {usable}") from e
    return device


def native_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is done in hardware. Without it a CPU is a hundred times slower, not faster."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def keep_buffers() -> None:
    """Have glibc keep freed buffers: fresh pages cost more to fault in than a small convolution to compute."""
    if sys.platform == "linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: never give the heap's top back
            libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD: take buffers from the heap, not from the kernel
        except (OSError, AttributeError):
            pass  # another C library: only speed is lost


def give_back() -> None:
    """Return freed memory to the system, where glibc or torch would keep it for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library gives back as it likes
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def resident() -> int:
    """Bytes of memory that this process takes now; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0

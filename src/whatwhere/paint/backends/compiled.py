"""torch.compile with the weights frozen into the code: fast, but it compiles many seconds for each shape of tile."""

from __future__ import annotations

import os
import shutil
import sys

import torch
from torch import Tensor

from whatwhere.paint.backends.backend import Backend, Job, Run, needs, on_device

__all__ = ["COMPILE"]


def _lacks(device: str) -> str:
    if device == "cuda":
        return needs("triton")(device)
    compilers = (os.environ.get("CXX", ""), "cl" if sys.platform == "win32" else "g++", "clang++", "c++")
    return "" if any(name and shutil.which(name) for name in compilers) else "a C++ compiler"


def _prepare(job: Job) -> Run:
    from torch._dynamo import config  # slow to load, and not asked for until here

    compiled = torch.compile(on_device(job), dynamic=False, options={"freezing": True})
    shapes: set[torch.Size] = set()

    def run(batch: Tensor) -> Tensor:
        most = config.cache_size_limit  # torch runs what comes after that uncompiled, without a word
        if batch.shape not in shapes and len(shapes) >= most:
            raise RuntimeError(f"torch compiles no more than {most} shapes of tiles")
        shapes.add(batch.shape)
        logits: Tensor = compiled(batch.to(job.dtype).contiguous(memory_format=torch.channels_last))
        return logits

    return run


COMPILE = Backend(
    "compile", _prepare, _lacks, "install g++ or clang++ (on a GPU: the package triton)", 30.0,
    devices=("cpu", "cuda"), any_shape=False,
)  # fmt: skip

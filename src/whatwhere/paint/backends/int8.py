"""Integers of 8 bits: an ONNX file that was quantised and checked, run by OpenVINO or by ONNX Runtime.

Both read the same file; how much it loses and how fast it is depends on who runs it. Knows nothing of how it was made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from whatwhere.errors import ModelError
from whatwhere.paint.backends.backend import Backend, Job, Run, needs
from whatwhere.paint.backends.onnx_runtime import session
from whatwhere.paint.backends.open_vino import by_shape

__all__ = ["INT8", "int8_backends"]

INT8 = ("int8-openvino", "int8-onnx")
"""Their names, the one that is mostly faster first."""


def int8_backends(path: Path, content: str) -> tuple[Backend, ...]:
    """Both ways to run a quantised file.

    Args:
        path: the file.
        content: its SHA-256; a file of other content is refused when it is prepared.
    """
    ways: tuple[tuple[Callable[[bytes], Run], str, str], ...] = (
        (_by_openvino, "openvino", "openvino"), (session, "onnxruntime", "onnx")
    )  # fmt: skip
    return tuple(
        Backend(
            name, _preparing(way, path, content), needs(package), f'pip install "whatwhere[{extra}]"', 1.5,
            precisions=("int8",), content=content,
        )
        for name, (way, package, extra) in zip(INT8, ways)
    )  # fmt: skip


def _preparing(way: Callable[[bytes], Run], path: Path, content: str) -> Callable[[Job], Run]:
    def prepare(_job: Job) -> Run:
        model = path.read_bytes()
        if hashlib.sha256(model).hexdigest() != content:
            raise ModelError(f"{path} is not the file that was checked", "", "make it again: whatwhere quantise")
        return way(model)

    return prepare


def _by_openvino(model: bytes) -> Run:
    import openvino

    core = openvino.Core()
    # what stays in float is computed as elsewhere on this machine
    precision = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    return by_shape(core, core.read_model(model, b""), precision)

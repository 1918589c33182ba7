"""OpenVINO: starts in about a second and runs U-Nets on CPUs faster than anything else that was measured here."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whatwhere.paint.backends.backend import Backend, Job, Run, needs

__all__ = ["OPENVINO", "by_shape"]

_SHAPES = 4
"""Shapes of tiles that get code of their own, which is faster; more shapes share code for any."""


def _prepare(job: Job) -> Run:
    import openvino

    core = openvino.Core()
    if job.precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise NotImplementedError("it has no bfloat16 on this processor")
    model, weights = _converted(job)
    return by_shape(core, model, "bf16" if job.precision == "bfloat16" else "f32", alive=weights)


def by_shape(core: Any, model: Any, precision: str, *, alive: object = None) -> Run:
    """Runs a graph of OpenVINO's own with code for each shape of tile.

    Args:
        core: the library's core.
        model: the graph, of one input ``(N, C, h, w)``.
        precision: ``"f32"`` or ``"bf16"``: what is not in integers anyway.
        alive: what has to live as long as the graph does.
    """
    import openvino

    kept = model, alive
    channels = model.input(0).get_partial_shape()[1].get_length()
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    requests: dict[tuple[int, ...], Any] = {}

    def run(batch: Tensor) -> Tensor:
        shape = tuple(batch.shape)
        if shape not in requests and len(requests) >= _SHAPES:
            shape = (-1, channels, -1, -1)
        if shape not in requests:
            shaped = kept[0].clone()
            shaped.reshape(list(shape))
            requests[shape] = core.compile_model(shaped, "CPU", settings).create_infer_request()
        pixels = openvino.Tensor(np.ascontiguousarray(batch.float().numpy()), shared_memory=True)
        return torch.from_numpy(requests[shape].infer([pixels], share_outputs=False)[0])

    return run


def _converted(job: Job) -> tuple[Any, object]:
    """The network as OpenVINO's own graph, for any height and width; and what has to live as long as it does.

    By the front end itself: ``openvino.convert_model`` does the same, but reports its use to its makers' servers.
    """
    from openvino import PartialShape
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of what the comparison will find, and of its own age
        traced = torch.jit.trace(job.network, job.example, check_trace=False)  # type: ignore[no-untyped-call]
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced)
        model = frontend.convert(frontend.load(decoder))
    model.reshape({model.input(0): PartialShape([-1, job.example.shape[1], -1, -1])})
    return model, decoder


OPENVINO = Backend("openvino", _prepare, needs("openvino"), 'pip install "whatwhere[openvino]"', 1.5)

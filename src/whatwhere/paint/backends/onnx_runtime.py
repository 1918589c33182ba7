"""ONNX Runtime: float32 only on a CPU, but well ahead of PyTorch as installed, and nearly everywhere at hand."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whatwhere.paint.backends.backend import Backend, Job, Run, needs

__all__ = ["ONNX", "exported", "session"]


class _OneInput(nn.Module):
    """The exporter passes every argument of ``forward``, also those that have defaults: here there is one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image)
        return logits


def _prepare(job: Job) -> Run:
    return session(exported(job))


def session(model: bytes) -> Run:
    """Runs an ONNX file, given as its bytes, whose one input is ``image``."""
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what fails is raised; warnings would go to the terminal
    running: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(batch: Tensor) -> Tensor:
        try:
            (logits,) = running.run(None, {"image": np.ascontiguousarray(batch.float().numpy())})
        except (Fail, InvalidArgument, RuntimeException) as error:  # not of Python's own family of errors
            raise RuntimeError(str(error)) from error
        return torch.from_numpy(logits)

    return run


def exported(job: Job) -> bytes:
    """The network as an ONNX file's bytes, for any number, height and width. Needs no exporter but torch's own."""
    file = io.BytesIO()
    sizes = {0: "number", 2: "height", 3: "width"}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of what the comparison will find, and of its own age
        torch.onnx.export(
            _OneInput(job.network).eval(), (job.example,), file,  # type: ignore[arg-type]  # of this way the stubs know less
            dynamo=False, input_names=["image"], output_names=["logits"],
            dynamic_axes={"image": sizes, "logits": sizes},
        )  # fmt: skip
    return file.getvalue()


ONNX = Backend(
    "onnx", _prepare, needs("onnxruntime", "onnx"), 'pip install "whatwhere[onnx]"', 3.0, precisions=("float32",)
)

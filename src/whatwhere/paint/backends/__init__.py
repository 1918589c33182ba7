"""What can run a network: torch itself, its compiler, OpenVINO, ONNX Runtime, CUDA graphs. One file each."""

from whatwhere.paint.backends.backend import Backend, Job, Run
from whatwhere.paint.backends.compiled import COMPILE
from whatwhere.paint.backends.cuda_graphs import GRAPHS
from whatwhere.paint.backends.eager import EAGER
from whatwhere.paint.backends.onnx_runtime import ONNX
from whatwhere.paint.backends.open_vino import OPENVINO

__all__ = ["BACKENDS", "EAGER", "Backend", "Job", "Run"]

BACKENDS = (EAGER, OPENVINO, ONNX, GRAPHS, COMPILE)
"""All there are, those that start soonest first."""

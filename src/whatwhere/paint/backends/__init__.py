"""What can run a network: torch itself, its compiler, OpenVINO, ONNX Runtime, CUDA graphs; int8. One file each."""

from whatwhere.paint.backends.backend import Backend, Job, Run
from whatwhere.paint.backends.compiled import COMPILE
from whatwhere.paint.backends.cuda_graphs import GRAPHS
from whatwhere.paint.backends.eager import EAGER
from whatwhere.paint.backends.int8 import INT8, int8_backends
from whatwhere.paint.backends.onnx_runtime import ONNX
from whatwhere.paint.backends.open_vino import OPENVINO

__all__ = ["BACKENDS", "EAGER", "INT8", "Backend", "Job", "Run", "int8_backends"]

BACKENDS = (EAGER, OPENVINO, ONNX, GRAPHS, COMPILE)
"""All that every model has, those that start soonest first."""

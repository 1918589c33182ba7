"""The U-Net, what it costs, and the model file."""

from whatwhere.network.balance import balance
from whatwhere.network.cost import Cost, cost
from whatwhere.network.encoders import known_encoder
from whatwhere.network.halo import halo
from whatwhere.network.machine import Machine, keep_freed_memory, measuring_machine, prepare_torch, probe_machine
from whatwhere.network.mirror import Mirrored
from whatwhere.network.model_file import (
    Holder,
    Model,
    as_model,
    build,
    has_lazy_layers,
    is_of,
    kind_of,
    load_model,
    name_of,
    own_config,
    save_model,
    state_of,
    versions,
)
from whatwhere.network.pretrained import (
    PHOTOGRAPHS,
    constants_of,
    load_pretrained,
    pretrained_file,
    pretrained_parameters,
)
from whatwhere.network.unet import Skip, UNet

__all__ = [
    "PHOTOGRAPHS",
    "Cost",
    "Holder",
    "Machine",
    "Mirrored",
    "Model",
    "Skip",
    "UNet",
    "as_model",
    "balance",
    "build",
    "constants_of",
    "cost",
    "halo",
    "has_lazy_layers",
    "is_of",
    "keep_freed_memory",
    "kind_of",
    "known_encoder",
    "load_model",
    "load_pretrained",
    "measuring_machine",
    "name_of",
    "own_config",
    "prepare_torch",
    "pretrained_file",
    "pretrained_parameters",
    "probe_machine",
    "save_model",
    "state_of",
    "versions",
]

"""The networks of the peers for images of three channels and two classes, and a step of each peer's default loop.

Networks as their packages give them. Steps are fed with ready tensors, and so are spared what reading and augmenting
costs them. nnU-Net's network is what its planner gives for 256x256 (seven stages, 32 to 512 channels, deep
supervision), its step that of its trainer: Dice and cross-entropy at every resolution, SGD with Nesterov momentum 0.99,
and on a GPU float16 with a scaler, and on request compiled.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["NETWORKS", "STEPS", "settled"]

Step = Callable[[Tensor, Tensor], None]
"""Learns once from ``(N, 3, H, W)`` float32 and ``(N, H, W)`` int64."""


def pytorch_unet() -> nn.Module:
    from peers.pytorch_unet import PytorchUnet

    return PytorchUnet()


def monai_unet() -> nn.Module:
    from monai.networks.nets import BasicUNet

    return BasicUNet(spatial_dims=2, in_channels=3, out_channels=2)


def smp_unet() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet34", encoder_weights=None, classes=2)


def nnunet() -> nn.Module:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    features = [32, 64, 128, 256, 512, 512, 512]
    return PlainConvUNet(
        3, len(features), features, nn.Conv2d, 3, [1, 2, 2, 2, 2, 2, 2], 2, 2, 2, conv_bias=True,
        norm_op=nn.InstanceNorm2d, norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "Pytorch-UNet's default, rewritten": pytorch_unet,
    "MONAI BasicUNet": monai_unet,
    "SMP Unet resnet34": smp_unet,
    "nnU-Net 2d": nnunet,
}


def pytorch_unet_step(network: nn.Module) -> Step:
    from peers.pytorch_unet import dice_loss

    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.RMSprop(network.parameters(), 1e-5, weight_decay=1e-8, momentum=0.999, foreach=True)

    def step(images: Tensor, target: Tensor) -> None:
        logits = network(images.to(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, target) + dice_loss(logits, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return step


def monai_step(network: nn.Module) -> Step:
    from monai.losses import DiceCELoss

    return usual_step(network, DiceCELoss(to_onehot_y=True, softmax=True), 1e-3, lambda target: target[:, None])


def smp_step(network: nn.Module) -> Step:
    import segmentation_models_pytorch as smp

    loss = smp.losses.DiceLoss(smp.losses.MULTICLASS_MODE, from_logits=True)
    return usual_step(network, loss, 2e-4, lambda target: target)


def usual_step(network: nn.Module, loss: nn.Module, rate: float, shape: Callable[[Tensor], Tensor]) -> Step:
    """The loop of most tutorials, with Adam."""
    optimizer = torch.optim.Adam(network.parameters(), rate)

    def step(images: Tensor, target: Tensor) -> None:
        optimizer.zero_grad()
        loss(network(images), shape(target)).backward()
        optimizer.step()

    return step


def nnunet_step(network: nn.Module, compiled: bool = False) -> Step:
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    network.decoder.deep_supervision = True
    levels = len(network.decoder.stages)
    shares = [2.0**-level for level in range(levels - 1)] + [0.0]
    dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    each = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)
    loss = DeepSupervisionWrapper(each, [share / sum(shares) for share in shares])
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    gpu = next(network.parameters()).is_cuda
    scaler = torch.amp.GradScaler("cuda", enabled=gpu)
    called = torch.compile(network) if compiled else network

    def step(images: Tensor, target: Tensor) -> None:
        truths = [target[:, None, :: 2**level, :: 2**level] for level in range(levels)]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", enabled=gpu):
            found = loss(called(images), truths)
        scaler.scale(found).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        scaler.step(optimizer)
        scaler.update()

    return step


STEPS: dict[str, Callable[[nn.Module], Step]] = dict(
    zip(NETWORKS, (pytorch_unet_step, monai_step, smp_step, nnunet_step))
)


def settled(network: nn.Module, image: Tensor) -> nn.Module:
    """Gives norms their statistics and classes a balance, as after training, in a network with random weights."""
    network.train()
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(2, 3, 128, 128))
        network.eval()
        heads = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.out_channels == 2]
        head = heads[-1]
        assert head.bias is not None
        head.bias -= network(image).mean((0, 2, 3))
    return network

"""A model made ready to be called on many tiles: folded, in the machine's best precision, by the fastest backend.

Knows networks and devices; knows nothing of images, files, or where tiles lie.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from whatwhere.errors import ModelError, in_a_line, is_out_of_memory
from whatwhere.network import Model, name_of, prepare_torch, probe_machine
from whatwhere.network.machine import Machine, Precision, hand_back_freed_memory
from whatwhere.paint.backends import EAGER, Backend, Job, Run
from whatwhere.paint.candidates import candidates
from whatwhere.paint.choice import Choice, Scene, choose, insist, middle
from whatwhere.paint.digest import digest_of
from whatwhere.paint.fold import NoTensorError, folded
from whatwhere.paint.geometry import Geometry, Pair
from whatwhere.paint.memory import Footprint, peak_bytes
from whatwhere.paint.verdicts import Verdicts
from whatwhere.paint.verify import agreement, difference, spread
from whatwhere.plain_torch import plain_torch

if TYPE_CHECKING:
    from whatwhere.field import Field

__all__ = ["BackendFailure", "Engine"]

_FEW = 2**19
"""Pixels of a job for which nothing but PyTorch itself is looked at: two tiles of 512x512."""

_GROWN = 4
"""A choice is thought over when a job is so many times the largest one before."""

_SMALL = 256
"""Side of what bfloat16 is tried on."""

_LOSES = 0.075
"""Of the logits' spread: half of what bfloat16 may do to a network made elsewhere: more than it does to those of MONAI
and segmentation_models.pytorch with random weights, unless they get raw numbers of 16 bits."""

_LOUD = 1e4
"""By which noise is multiplied: no logits stay between 0 and 1 then."""

_PACKAGES = ("whatwhere", "torch", "openvino", "onnxruntime", "onnx", "triton")
"""On whose versions it depends how fast a backend is, and whether it runs."""


class BackendFailure(RuntimeError):  # noqa: N818 (not for users: painting goes on without the backend)
    """A backend that had been verified can't run a tile after all."""


class Engine:
    """A model prepared for inference. Make one, paint many images with it.

    Args:
        model: left untouched; the engine works on a copy.
        precision: ``"auto"`` takes bfloat16 where the machine computes in it and the network can, else float32.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        backend: ``"auto"`` looks for the fastest that is installed and computes the same, where a job is long enough
            for that; ``"eager"``, ``"compile"``, ``"openvino"``, ``"onnx"``, ``"graphs"`` or ``"int8"`` asks for one.
        images: how many like the first are going to be painted.
        field: of the same network with other weights, where it is known.

    Attributes:
        model: the model as given.
        geometry: which sizes it takes, its halo and period.
        precision: ``"float32"``, ``"bfloat16"`` or ``"int8"``: what the network computes in.
        reason: why the machine's precision, in words.
        insisted: whether somebody asked for a precision, and so is not to get int8.
        device: where it runs.
        notes: a line for each backend that could not be used, and for bfloat16 that loses too much.

    Raises:
        PlanError: a backend that is unknown, not installed, or not for this device or precision.
        ModelError: a network that can't be run, or gives probabilities; a model of one class.
    """

    @plain_torch()
    def __init__(
        self,
        model: Model,
        precision: Precision = "auto",
        device: str = "auto",
        *,
        backend: str | Backend = "auto",
        images: int = 1,
        field: Field | None = None,
    ) -> None:
        if model.classes.count < 2:
            raise ModelError(
                f"the model has one class, {model.classes.names[0]}: all pixels would be that",
                "two classes or more",
                "name the background too, as the first class",
            )
        machine = probe_machine(device, precision)
        prepare_torch()
        self.model, self.geometry = model, Geometry(model, field)
        self.device = torch.device(machine.device)
        self.reason = machine.reason
        found = candidates(backend, self.device.type, precision, model, lambda: self.digest)
        self._candidates, self.notes = found.backends, found.notes
        self._processor, self._asked, self._images, self._largest = machine.name, backend, images, 0
        self._job, self._eager = self._ready(machine, precision)
        self._choice = Choice(EAGER.name, self._job.precision, self._eager)
        self._aside: Choice | None = None
        self.insisted = precision != "auto"
        self._sure = self._job.precision == "float32" or self.geometry.config is not None

    @property
    def precision(self) -> str:
        return self._choice.precision

    @property
    def backend(self) -> str:
        """What runs the network now."""
        return self._choice.backend

    @property
    def how(self) -> str:
        """What computes and in what: paintings of two of them are not mixed."""
        return f"{self.backend} {self.precision}"

    @property
    def asked(self) -> str:
        """The backend that was asked for; ``"auto"`` for whatever is fastest."""
        return self._asked if isinstance(self._asked, str) else self._asked.name

    @property
    def why(self) -> str:
        """Why that precision, where it is not the machine's."""
        return self._choice.why

    @property
    def job(self) -> Job:
        """The network as backends get it."""
        return self._job

    def settle(self, pixels: int, tile: Callable[[], Tensor], begun: str = "") -> None:
        """Chooses the backend for an image that is about to be painted; no two of them paint one image.

        Args:
            pixels: how many will pass through the network.
            tile: reads a tile of the image as network input ``(1, C, h, w)``; called only if it is needed.
            begun: as :attr:`how` was in an earlier run that has painted a part of the image; "" if there was none.
        """
        if not self._sure:
            self._sure = True
            self._try_rounding(tile)
        work = pixels * self._images
        asked = self._asked != "auto"
        if self._aside is not None:
            self._choice, self._aside = self._aside, None
        if begun and not asked:
            if begun != self.how:
                self._aside = self._choice  # for the next image
                self._go_on(begun, work, tile)
            return
        if not self._candidates or work < _GROWN * self._largest or (not asked and work < _FEW):
            return
        scene = self._scene(self._job, self._eager, work, tile)
        # images differ in size, and some backends begin anew with each
        free = tuple(one for one in self._candidates if one.any_shape or self._images == 1)
        found = insist(scene, self._candidates[0], Verdicts()) if asked else choose(scene, free, Verdicts())
        self._largest = work  # only now: where memory ran out, it is thought over with a smaller tile
        if asked:
            self._candidates = ()
        self._take(found)

    def _try_rounding(self, tile: Callable[[], Tensor]) -> None:
        """Whether bfloat16 is enough for a network made elsewhere, on pixels of the first image; else float32 it is.

        Raw numbers of 16 bits lie closer together than bfloat16's, and what such a network normalises is not known.
        """
        piece = middle(tile(), self.geometry.period, _SMALL, _SMALL)
        try:
            with torch.inference_mode():
                reference = self._both(self._job.network(piece))
            logits = self._two(self._eager, piece)
        except Exception:  # noqa: BLE001 (a network for one size; what else is wrong, painting tells)
            return
        usual = _LOSES * spread(reference)
        found = agreement(reference, logits, self._job.precision, usual=usual)
        if found.passed:
            return
        if self.insisted:
            self.notes = (*self.notes, f"{self._job.precision} as asked, but {found}")
            return
        self.reason = f"{self._job.precision} is not used: {found}"
        self.notes = (*self.notes, self.reason)
        self._job = replace(self._job, precision="float32")
        self._eager, _ = self._begun(self._job)
        self._choice = Choice(EAGER.name, self._job.precision, self._eager)
        vars(self).pop("footprint", None)  # float32 takes more

    def _go_on(self, begun: str, work: int, tile: Callable[[], Tensor]) -> None:
        """With what has painted a part of the image already, though another may be thought faster by now.

        In float32 too, where bfloat16 was not enough for an image of that run and is for the first one of this.
        """
        before, _, precision = begun.partition(" ")
        job, eager = self._job, self._eager
        if (precision, job.precision) == ("float32", "bfloat16") and not self.insisted:
            job = replace(job, precision="float32")
            eager, _ = self._begun(job)
        mine = Choice(EAGER.name, job.precision, eager)
        for backend in self._candidates:
            if backend.name == before:
                mine = insist(self._scene(job, eager, work, tile), backend, Verdicts())
        self._take(mine)

    def _take(self, choice: Choice) -> None:
        self._choice = choice
        self.notes = tuple(dict.fromkeys((*self.notes, *choice.notes)))  # said once, however often it is thought over
        if choice.backend != EAGER.name:  # else what PyTorch took to be compared with stays beside the other's own
            hand_back_freed_memory()

    def _scene(self, job: Job, eager: Run, work: int, tile: Callable[[], Tensor]) -> Scene:
        sample = tile().to(self.device)
        key = self._key(sample, job.precision)
        return Scene(job, eager, self._reference, sample, self.geometry.period, work, key)

    def fall_back(self, failure: BackendFailure) -> None:
        """Goes on with PyTorch itself."""
        self.notes = (*self.notes, str(failure))
        self._candidates, self._aside = (), None
        self._choice = Choice(EAGER.name, self._job.precision, self._eager)

    def logits(self, batch: Tensor) -> Tensor:
        """``(N, C, h, w)`` float32 network input to ``(N, classes, h, w)`` float32 logits, on the engine's device.

        Raises:
            BackendFailure: see :meth:`fall_back`.
            ModelError: the network fails on images of this size, or gives a painting of another.
        """
        try:
            found = self._two(self._choice.run, batch)
            if found.shape[2:] != batch.shape[2:]:
                raise ValueError(f"it gives scores of shape {tuple(found.shape)}")
            return found
        except Exception as error:  # whatever another library or a network of the user's raises
            if is_out_of_memory(error):
                raise
            if self.backend == EAGER.name:
                raise ModelError(
                    f"the network fails on an input of shape {tuple(batch.shape)} ({in_a_line(error)})",
                    "a network that takes images of that size",
                    "crop or resize the image to a size that it was made for",
                ) from error
            raise BackendFailure(f"{self.backend} is not used any more: {in_a_line(error)}") from error

    def _two(self, run: Run, batch: Tensor) -> Tensor:
        with torch.inference_mode():
            return self._both(run(batch.to(self.device)))

    def _both(self, logits: Tensor) -> Tensor:
        if not logits.is_floating_point():
            raise ModelError(
                f"{name_of(self.model.network)} gives numbers of {logits.dtype}, perhaps class ids",
                "logits, a score for each class",
                "return what goes into its argmax",
            )
        if logits.shape[1] == 1 and self.model.classes.count == 2:  # one sigmoid channel: the logit of the second class
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return logits.float()

    @cached_property
    def digest(self) -> str:
        """Names the network: its weights and structure, and of one made elsewhere its code and plain attributes."""
        return digest_of(self.model.network)

    @property
    def identity(self) -> str:
        """Names the model: its network, and what its input and its classes mean."""
        facts = (self.digest, self.model.classes, self.model.normalisation)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]

    def _key(self, tile: Tensor, precision: str) -> str:
        """All that a measured time and a comparison depend on."""
        facts = (
            self.digest, tuple(tile.shape), precision, str(self.device), self._processor,
            torch.get_num_threads(), *map(_version, _PACKAGES),
            *sorted({backend.content for backend in self._candidates} - {""}),
        )  # fmt: skip
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]

    @cached_property
    def _reference(self) -> Run:
        network = self.geometry.own().to(self.device)
        return lambda batch: network(batch)

    def pads_otherwise(self, size: Pair) -> bool:
        """See :meth:`Geometry.pads_otherwise`."""
        return self.geometry.pads_otherwise(size, lambda batch: self._two(self._reference, batch))

    def step(self, size: Pair) -> Pair:
        """See :meth:`Geometry.step`."""
        return self.geometry.step(size, lambda batch: self._two(self._reference, batch))

    @cached_property
    def footprint(self) -> Footprint:
        """The memory that a forward pass takes."""
        found: list[tuple[int, int]] = []
        for times in (1,) if self.geometry.config is not None else (1, 2):
            example = self.geometry.example(times)
            try:
                peak = peak_bytes(lambda batch: self._two(self._eager, batch), example.to(self.device))
            except Exception:
                if not found:
                    raise
                break  # a network for one size
            found.append((peak, example.shape[-2] * example.shape[-1]))
        return Footprint.of(found)

    def _ready(self, machine: Machine, asked: Precision) -> tuple[Job, Run]:
        """On the machine's device; with a note on the CPU, where that can't run the network or computes otherwise."""
        try:
            return self._prepare(machine.precision)
        except RuntimeError as error:
            if self.device.type == "cpu":
                raise
            if is_out_of_memory(error):
                raise ModelError(
                    f"{self.device} has no room for the network ({in_a_line(error)})",
                    "a device with free memory",
                    "close what else uses it, or use the device cpu",
                ) from error
            self.notes = (*self.notes, f"{self.device} is not used: {in_a_line(error)}")
        instead = probe_machine("cpu", asked)
        self.device, self.reason, self._candidates = torch.device("cpu"), instead.reason, ()
        return self._prepare(instead.precision)

    def _prepare(self, precision: str) -> tuple[Job, Run]:
        """The job and PyTorch's own run of it, in float32 if the network can't do it in less."""
        example = self.geometry.example()
        if any(part.is_complex() for part in (*self.model.network.parameters(), *self.model.network.buffers())):
            raise ModelError(
                f"{name_of(self.model.network)} has complex weights",
                "real ones",
                "keep them as torch.view_as_real has them",
            )
        try:
            network = folded(self.geometry.own(), example)
        except Exception as error:  # whatever a network of the user's trips over
            raise ModelError(
                f"the network fails on an image of shape {tuple(example.shape)} ({in_a_line(error)})",
                f"a module that turns (N, {example.shape[1]}, H, W) into (N, {self.model.classes.count}, H, W)",
                _remedy(self.model.network, error),
            ) from error
        job = Job(network, example, precision, self.device)
        try:
            run, logits = self._begun(job)
        except (RuntimeError, TypeError) as error:  # a TypeError of numpy's, which has no bfloat16
            if job.precision == "float32":
                raise
            lacks = "the network has operators that bfloat16 lacks"
            self.reason = lacks if self.device.type == "cpu" else f"not in {job.precision}: {in_a_line(error)}"
            job = replace(job, precision="float32")
            run, logits = self._begun(job)
        self._check(logits.shape, example.shape)
        self._check_oblong(job)
        self._refuse_probabilities(job, logits)
        return job, run

    def _begun(self, job: Job) -> tuple[Run, Tensor]:
        """PyTorch's own run, and what it makes of the example, which is held against the network as it is on the CPU.

        In the network's own layout where it fails in the fastest, or computes something else: what is a copy in one of
        them need not be one in the other, and it may be written into.
        """
        found: list[tuple[Run, Tensor]] = []
        failures: list[RuntimeError] = []
        for prepare in (EAGER.prepare, _in_its_layout):
            try:
                run = prepare(job)
                found.append((run, self._two(run, job.example)))
                if self.geometry.config is None or self.device.type != "cpu":
                    self._compare(job, found[-1][1])
            except RuntimeError as error:
                if is_out_of_memory(error) or self.geometry.config is not None:
                    raise
                failures.append(error)
            else:
                return found[-1]
        if found and self.device.type == "cpu":  # it never gives the same twice
            return found[0]
        raise failures[0]

    def _compare(self, job: Job, logits: Tensor) -> None:
        """RuntimeError if logits are not those of the network as it is on the CPU, to what rounding does there too."""
        with torch.inference_mode():
            reference = self._both(job.network(job.example))
            found = agreement(reference, logits, job.precision)
            if not found.passed and job.precision != "float32":  # some networks lose more by rounding than most
                here = _in_its_layout(replace(job, device=torch.device("cpu")))
                usual = difference(reference, self._both(here(job.example)))
                found = agreement(reference, logits, job.precision, usual=usual)
        if not found.passed:
            raise RuntimeError(str(found))

    def _check(self, found: torch.Size, given: torch.Size) -> None:
        """A painting has the image's size, and a score for each class."""
        count = self.model.classes.count
        if found != (1, count, *given[2:]):
            raise ModelError(
                f"the network turns an image of shape {tuple(given)} into scores of shape {tuple(found)}",
                f"{(1, count, *given[2:])}, as there are {count} classes",
                "crop or enlarge its output to the image's size, and name all its classes",
            )

    def _check_oblong(self, job: Job) -> None:
        """Height and width that change places, which no square shows."""
        if self.geometry.config is not None:
            return
        half = job.example[..., : job.example.shape[-2] // 2, :]
        try:
            with torch.inference_mode():
                found = job.network(half).shape
        except Exception:  # noqa: BLE001 (it takes others only)
            return
        if found[2:] == half.mT.shape[2:]:
            self._check(found, half.shape)

    def _refuse_probabilities(self, job: Job, logits: Tensor) -> None:
        """A network's own sigmoid is no logit, its own softmax no score; they show in noise, however loud it is."""
        if self.geometry.config is not None or logits.min() < 0 or logits.max() > 1:
            return
        with torch.inference_mode():
            found = [job.network(job.example * scale) for scale in (1, _LOUD)]
        bounded = all(bool(one.min() >= 0 and one.max() <= 1) for one in found)
        whole = found[0].shape[1] == 1 or all(bool((one.sum(1) - 1).abs().max() < 1e-4) for one in found)
        if bounded and whole and found[0].std() > 0:
            raise ModelError(
                f"{name_of(self.model.network)} gives probabilities: of noise, numbers from 0 to 1",
                "logits",
                "return what goes into its last sigmoid or softmax, or wrap it: p.logit() of one channel, else p.log()",
            )


def _in_its_layout(job: Job) -> Run:
    """The network as torch runs it, channels first."""
    network = copy.deepcopy(job.network).to(device=job.device, dtype=job.dtype)
    return lambda batch: network(batch.to(job.dtype).contiguous())


def _remedy(network: nn.Module, error: Exception) -> str:
    """What to do about a network that fails, or gives something else than logits."""
    if isinstance(error, NoTensorError):
        part = "network(x)[0]" if any(f" {kind}," in str(error) for kind in ("tuple", "list")) else "network(x)['out']"
        return f"wrap it in a module whose forward returns the logits alone, such as {part}"
    mixed = any(tensor.dtype != torch.float32 for tensor in network.parameters())
    if mixed and "type" in str(error):  # it casts to what its weights were
        return "make all its weights and casts float32, in which they are tried"
    return "check its channels and that it takes any height and width"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

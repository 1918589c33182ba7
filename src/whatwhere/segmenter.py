"""``Segmenter``: a model in hand, with arrays or files as images."""

from __future__ import annotations

import tempfile
import time as clock
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whatwhere.data.arrays import as_array, naming_arrays, write_arrays
from whatwhere.data.images import without_alpha
from whatwhere.data.mapping import class_colors
from whatwhere.errors import DataError, ModelError, in_a_line
from whatwhere.judge import Scores
from whatwhere.learn.plan_file import network_with
from whatwhere.learn.view import TrainingView
from whatwhere.network import Model, as_model, has_lazy_layers, kind_of, load_model, save_model
from whatwhere.network.mark import mark
from whatwhere.paint import Engine, Painting, paint
from whatwhere.paint.files import fitted, open_image
from whatwhere.plain_torch import plain_torch
from whatwhere.records import VOID, Classes, Normalisation
from whatwhere.verbs import PathLike, Skips, evaluate, explain, plan, train

if TYPE_CHECKING:
    from whatwhere.explain import Explanation

__all__ = ["Segmenter"]


class Segmenter:
    """A model in hand: fit or load it, then predict, evaluate, save.

    >>> import numpy as np
    >>> squares = [np.kron(np.eye(2), np.ones((24, 24))).astype(np.uint8) * 200 for _ in range(2)]
    >>> model = Segmenter.fit(squares, [square > 0 for square in squares], epochs=1, width=4, depth=2)
    >>> model.predict(squares[0]).shape
    (48, 48)
    """

    def __init__(self, model: Model) -> None:
        self.model = as_model(model)
        self._engines: dict[str, Engine] = {}
        self._made_of: tuple[object, ...] = ()
        self._weights: list[Tensor] = []

    def __getstate__(self) -> dict[str, Any]:
        """The model alone: what was made ready of it belongs to this process, and is made anew in another."""
        return {**vars(self), "_engines": {}, "_made_of": (), "_weights": []}

    @classmethod
    @plain_torch()
    def fit(
        cls,
        data: PathLike | Iterable[NDArray[Any]],
        masks: Iterable[NDArray[Any]] | None = None,
        *,
        time: str | None = None,
        epochs: float | None = None,
        seed: int = 0,
        skips: Skips = None,
        encoder: str = "auto",
        device: str = "auto",
        module: nn.Module | None = None,
        out: PathLike | None = None,
        view: TrainingView | None = None,
        **network: Any,
    ) -> Segmenter:
        """Plans and trains.

        The caller's random generators stay as they were; cuDNN is left deterministic, without TF32.

        Args:
            data: a data folder, or images as arrays (``HxW`` or ``HxWxC``, one dtype and number of channels). Errors
                name these by their places, from 0. What is masked of a masked array does not count.
            masks: with arrays: class ids, 0/255, booleans or RGB colours, one an image.
            time, epochs: the budget (20 minutes if neither is given).
            seed: of everything random.
            skips, encoder, device: as for :func:`whatwhere.plan`.
            module: a network of MONAI, segmentation_models.pytorch or your own to be trained instead of whatwhere's,
                ``(N, C, H, W) -> (N, classes, H, W)``. It begins with the weights that it has, and in the end has those
                of the model, in eval mode and on a CPU perhaps channels last.
            out: the run folder; a temporary one if None.
            view: is told what happens; nothing is printed by default.
            network: changes to the plan's network, such as ``width=16``.

        Raises:
            DataError: arrays that are no images with masks, or a folder that can't be trained on.
            PlanError: as for :func:`whatwhere.plan`; or ``network`` changes it to one that can't be.
            ModelError: timm has no such model.
            OutputError, TrainingError: as for :func:`whatwhere.train`.
        """
        started = clock.perf_counter()
        if isinstance(data, str | Path) and masks is not None:
            raise DataError(f"masks beside the folder {data}", "a folder that holds both, or arrays of both", "")
        with tempfile.TemporaryDirectory(prefix="whatwhere-") as temporary, naming_arrays(Path(temporary) / "data"):
            root = data if isinstance(data, str | Path) else write_arrays(data, masks, Path(temporary) / "data")
            made = plan(
                root, time=time, epochs=epochs, seed=seed, skips=skips, encoder=encoder, device=device, module=module
            )
            if network:
                levels = "all" if skips is None else made.network.skips
                made = replace(made, network=network_with(made, {"skips": levels, **network}))
            run = Path(out or Path(temporary) / "run")
            record = train(root, run, plan=made, module=module, view=view, started=started)
            model = load_model(record.folder, module)
            return cls(model if out else replace(model, source=None))  # its file goes with the temporary folder

    @classmethod
    def load(cls, path: PathLike, module: nn.Module | None = None) -> Segmenter:
        """From a model file or a run folder; ``ModelError`` if it is missing, damaged, or of another program.

        For a network made elsewhere ``module`` is that network, made again, a copy of which gets the weights: a file
        holds nothing else of it.
        """
        return cls(load_model(path, module))

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        classes: Classes | Sequence[str] | int,
        normalisation: Normalisation | tuple[Sequence[float], Sequence[float]],
    ) -> Segmenter:
        """Any torch module ``(N, C, H, W) -> (N, classes, H, W)`` gets exact tiles, scores and explanations.

        Args:
            module: of segmentation_models.pytorch, MONAI, or your own, that gives logits as one tensor of the image's
                height and width (of two classes also one channel: the logit of the second); switched to evaluation
                mode. It is first run when something is painted.
            classes: names or a number (class k is mask value k), or a full ``Classes`` record, which also says the mask
                values.
            normalisation: means and standard deviations, a number a channel, in the units of the raw images. A pair
                is for images of 8 bits: constants for images from 0 to 1 have to be multiplied by 255. Images of
                another depth need a ``Normalisation``, which says their dtype.

        Raises:
            ModelError: no module, but its weights or a file; lazy layers that never ran, or what torch.export made of a
                module; names or a number that are no classes; constants that are not finite numbers a channel, or are
                for images from 0 to 1.
        """
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"module is {kind_of(module)}",
                "a torch module",
                "make the network, give it its weights by load_state_dict, and wrap that",
            )
        if has_lazy_layers(module):
            raise ModelError(
                f"{type(module).__name__} has lazy layers",
                "layers with weights",
                "run it once on an image, then wrap it",
            )
        if not isinstance(normalisation, Normalisation):
            normalisation = _constants(normalisation)
        try:
            module.eval()
        except NotImplementedError as error:
            raise ModelError(
                f"{type(module).__name__} can't be switched to evaluation mode ({in_a_line(error)})",
                "a module that can",
                "give the one that torch.export made it from",
            ) from error
        return cls(Model(module, _classes(classes), normalisation))

    def predict(self, image: NDArray[Any] | PathLike, *, backend: str = "auto") -> NDArray[np.uint8]:
        """``HxW`` or ``HxWxC`` array of any size, or an image file -> ``HxW`` uint8 class ids.

        Where a file has no data, or a masked array is masked, it is 255; a GeoTIFF needs the extra ``geo``. What is
        painted has to fit into memory; :func:`whatwhere.predict` paints files of any size into files.

        Args:
            image: in the dtype, units and channels of the training images, channels last.
            backend: ``"auto"``, ``"eager"``, ``"compile"``, ``"openvino"``, ``"onnx"``, ``"graphs"`` or ``"int8"``.

        Raises:
            ModelError: an image of another dtype or number of channels, or a network that can't be run.
            DataError: no image, or one with NaN or infinity.
            PlanError: a backend that is not to be had.
        """
        return self.paint(image, backend=backend).labels

    @plain_torch()
    def paint(self, image: NDArray[Any] | PathLike, *, probabilities: bool = False, backend: str = "auto") -> Painting:
        """Like :meth:`predict`, with the probabilities on request and a report of how it was done.

        The probabilities are ``(classes, H, W)`` float32 and add up to 1.

        Raises:
            ModelError, DataError, PlanError: as for :meth:`predict`.
        """
        engine = self._engine(backend)
        if not isinstance(image, str | Path):
            return paint(engine, _pixels(image, self.model.normalisation.channels), probabilities=probabilities)
        with closing(fitted(open_image(Path(image)), self.model.normalisation.channels)) as source:
            return paint(engine, source, probabilities=probabilities)

    def _engine(self, backend: str) -> Engine:
        """The model made ready, once until it changes: an engine works on a copy of the network."""
        model = self.model
        made_of = (model, mark(model.network), model.classes, model.normalisation, model.source)
        now = [tensor.detach() for tensor in (*model.network.parameters(), *model.network.buffers())]
        if made_of != self._made_of or not _equal(now, self._weights):
            self._engines, self._made_of, self._weights = {}, made_of, [tensor.clone() for tensor in now]
        if backend not in self._engines:
            self._engines[backend] = Engine(self.model, backend=backend)
        return self._engines[backend]

    def evaluate(self, data: PathLike, *, split: str | None = None) -> Scores:
        """Scores on a data folder. See :func:`whatwhere.evaluate`."""
        return evaluate(self.model, data, split=split)

    def explain(self, data: PathLike, **options: Any) -> Explanation:
        """What the network knows, where, and what each skip delivers.

        Options and errors are those of :func:`whatwhere.explain` (in ``whatwhere.verbs``).
        """
        return explain(self.model, data, **options)

    def save(self, path: PathLike) -> Path:
        """One ``.safetensors`` file with everything needed to use it; of a module made elsewhere all but its code.

        Raises:
            ModelError: a module with state that is no tensor.
            OutputError: it can't be written.
        """
        return save_model(self.model, path)


def _classes(given: Classes | Sequence[str] | int) -> Classes:
    """Of names or a number, mask value k is class k."""
    if isinstance(given, Classes):
        return given
    if isinstance(given, str):
        raise ModelError(f"classes are the text {given!r}", "a list of names, or a number", f"give [{given!r}, ...]")
    if isinstance(given, int | np.integer):
        if not 1 <= given < VOID:
            raise ModelError(f"{given} classes", f"1 to {VOID - 1}", "")
        given = [f"class {index}" for index in range(given)]
    try:
        values = tuple((index,) for index in range(len(given)))
        return Classes(tuple(given), class_colors(values), values)
    except (TypeError, ValueError) as error:
        raise ModelError(f"classes: {error}", "a name of its own for each class", "") from error


def _constants(pair: tuple[Sequence[float], Sequence[float]]) -> Normalisation:
    """Of images of 8 bits."""
    try:
        mean, std = pair
        found = Normalisation(tuple(map(float, mean)), tuple(map(float, std)))
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"normalisation {pair!r:.60} ({error})",
            "two sequences: means, and as many positive deviations",
            "ImageNet's, for instance, are (123.675, 116.28, 103.53), (58.395, 57.12, 57.375) for images of 8 bits",
        ) from error
    if all(0 < one < 1 for one in found.mean) and all(one <= 1 for one in found.std):
        raise ModelError(
            f"means {found.mean} and deviations {found.std}, which are for images from 0 to 1",
            "constants in the units of the raw images, from 0 to 255",
            "multiply both by 255; for images that are from 0 to 1 give Normalisation(mean, std, 'float32')",
        )
    return found


def _pixels(image: Any, channels: int) -> NDArray[Any]:
    """What numpy makes an array of, as one that can be painted."""
    wanted, remedy = "an array of numbers, HxW or HxWxC", "make it one by numpy.asarray, or give the path of a file"
    try:
        array = as_array(image)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of several lengths, a tensor of bfloat16
        raise DataError(f"the image is no array ({in_a_line(error)})", wanted, remedy) from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"the image has shape {array.shape} and dtype {array.dtype}", wanted, remedy)
    whole = array.ndim != 3 or isinstance(array, np.ma.MaskedArray)  # an alpha channel beside a mask would be odd
    return array if whole else without_alpha(array, channels)


def _equal(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """By value: not all that writes into weights counts up their version, as what writes into ``.data`` does not."""
    return len(some) == len(others) and all(
        one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)
        for one, other in zip(some, others)
    )

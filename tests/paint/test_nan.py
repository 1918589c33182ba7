"""Logits of NaN: no label follows from them, and that is said; infinite ones are numbers, and no data is no fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from painting import model_of, picture, unet, whole_logits
from PIL import Image
from torch import Tensor, nn

from tiny import Cli
from whatwhere.errors import ModelError
from whatwhere.network import save_model
from whatwhere.paint import Engine, Tiling
from whatwhere.paint.blend import blend_tiles
from whatwhere.paint.paint import ArraySink
from whatwhere.paint.scheme import Scheme
from whatwhere.paint.sources import ArraySource
from whatwhere.paint.work import paint_tiles

SIZE = 150, 170
NAN = float("nan")

Way = Callable[..., None]
WAYS = pytest.mark.parametrize("way", [paint_tiles, blend_tiles])


class _After(nn.Module):
    """Three classes by a 1x1 convolution, and then what a test does to their logits."""

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scores, self.change = nn.Conv2d(3, 3, 1), change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x, self.scores(x))


class _HalfEmpty(ArraySource):
    """Without data from column 64 on."""

    def read(self, box: Any) -> Any:
        valid = np.zeros(SIZE, bool)
        valid[:, :64] = True
        return super().read(box)[0], valid[tuple(slice(*span) for span in box)]


def _painted(way: Way, network: nn.Module, source: ArraySource) -> ArraySink:
    tiling = Tiling(source.size, (64, 64), ((16, 16), (16, 16)))
    sink = ArraySink(source.size, 3)
    engine = Engine(model_of(network), "float32", backend="eager")
    way(engine, source, Scheme(tiling, exact=way is paint_tiles), sink, probabilities=True)
    return sink


@WAYS
def test_one_pixel_is_told_with_its_place(way: Way) -> None:
    image = picture(*SIZE) // 2
    image[70, 90] = 255
    network = _After(lambda x, logits: torch.where(x.amin(1, keepdim=True) > 3, NAN, logits))
    with pytest.raises(ModelError, match=r"the network gives NaN for a\.tif at row 70, column 90; expected logits"):
        _painted(way, network, ArraySource(image, "a.tif"))


@WAYS
def test_infinite_logits_are_numbers(way: Way) -> None:
    """One class is switched off, another one sure at some pixels, and a sum of all would be NaN."""
    off, sure = torch.tensor([0.0, -torch.inf, 0.0])[:, None, None], torch.tensor([torch.inf, 0, 0])[:, None, None]
    network = _After(lambda x, logits: torch.where(x[:, :1] > 1, sure, logits) + off)
    image = picture(*SIZE)
    labels = _painted(way, network, ArraySource(image)).labels
    np.testing.assert_array_equal(labels, whole_logits(model_of(network), image).argmax(0))
    assert set(np.unique(labels)) == {0, 2}


@WAYS
def test_nothing_is_asked_of_what_is_no_data(way: Way) -> None:
    """A network that divides by the pixel has no answer where there is none; some tiles hold nothing else."""
    network = _After(lambda x, logits: logits + (x / x).sum(1, keepdim=True))
    image = picture(*SIZE) | 1  # none is the mean
    sink = _painted(way, network, _HalfEmpty(image))
    expected = whole_logits(model_of(network), image)
    np.testing.assert_array_equal(sink.labels[:, :64], expected.argmax(0)[:, :64])
    assert (sink.labels[:, 64:] == 255).all()
    assert sink.probabilities is not None
    assert np.isfinite(sink.probabilities).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_a_damaged_network_paints_nothing(classes: int, run_cli: Cli, tmp_path: Path) -> None:
    network = unet(classes=classes)
    network.get_submodule("encoder.0.0.1").running_var.fill_(NAN)
    save_model(model_of(network, classes=classes), tmp_path / "m.safetensors")
    Image.fromarray(picture(20, 30)).save(tmp_path / "a.png")
    done = run_cli("predict", "m.safetensors", "a.png", "-o", "out")
    assert done.code == 2
    words = " ".join(done.err.split())
    assert "the network gives NaN for a.png at row 0, column 0" in words
    assert "in its weights" in words
    assert not (tmp_path / "out/a.png").exists()

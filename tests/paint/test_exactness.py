"""Tiled logits are the whole image's, whatever the sizes; with one stride less of halo they are not."""

from __future__ import annotations

import numpy as np
import pytest
from painting import model_of, picture, unet, whole_logits

from whatwhere.paint import Engine, Tiling
from whatwhere.paint.prove import prove, tiled_logits
from whatwhere.paint.sources import ArraySource


def _case(number: int) -> None:
    """One random network, size and tile, in float32, against the user's own module on the whole image."""
    draw = np.random.default_rng(number)
    depth = int(draw.integers(1, 6))
    options = {"block": draw.choice(["plain", "residual"]), "up": draw.choice(["transpose", "bilinear"])}
    model = model_of(unet(seed=number, width=2, depth=depth, max_width=16, **options))
    height, width = (int(n) for n in draw.integers(1, 700, size=2))
    image = picture(height, width, seed=number)
    engine = Engine(model, "float32")
    least = Tiling((height, width), (10**4, 10**4), engine.halo, engine.period).smallest
    tile = tuple(int(side + draw.integers(0, 200)) for side in least)
    tiling = Tiling((height, width), tile, engine.halo, engine.period)
    tiled = tiled_logits(engine, ArraySource(image), tiling)
    np.testing.assert_allclose(tiled.numpy(), whole_logits(model, image).numpy(), atol=1e-4, err_msg=f"{tiling}")


@pytest.mark.parametrize("number", range(30))
def test_tiles_equal_the_whole_image(number: int) -> None:
    _case(number)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(30, 200))
def test_tiles_equal_the_whole_image_in_all_cases(number: int) -> None:
    _case(number)


@pytest.mark.parametrize(("depth", "up"), [(1, "transpose"), (2, "bilinear"), (3, "transpose")])
def test_one_stride_less_of_halo_fails(depth: int, up: str) -> None:
    model = model_of(unet(depth=depth, up=up, seed=depth))
    proof = prove(model, picture(333, 402))
    assert proof.passed
    assert proof.difference < 1e-4
    assert proof.less is not None
    assert proof.less > 100 * proof.difference
    assert proof.less > 1e-3

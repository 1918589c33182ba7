"""Tiles are integers: they partition, they read what is needed, they are all one shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whatwhere.paint.tiles import Tiling, choose_tile


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    period = draw(st.tuples(*[st.sampled_from([1, 2, 3, 8, 16])] * 2))
    halo = tuple((draw(st.integers(0, 40)), draw(st.integers(0, 40))) for _ in range(2))
    align = draw(st.sampled_from([1, 4, 10, 32]))
    size = draw(st.tuples(st.integers(1, 300), st.integers(1, 300)))
    least = Tiling(size, (10**6, 10**6), halo, period, align).smallest
    tile = tuple(side + draw(st.integers(0, 200)) for side in least)
    return Tiling(size, tile, halo, period, align)


@given(tilings())
@settings(max_examples=150, deadline=None)
def test_writes_partition_the_image(tiling: Tiling) -> None:
    count = np.zeros(tiling.size, int)
    for tile in tiling:
        (y0, y1), (x0, x1) = tile.write
        assert y0 < y1
        assert x0 < x1
        count[y0:y1, x0:x1] += 1
    assert (count == 1).all()
    assert [tile.index for tile in tiling] == list(range(len(tiling)))


@given(tilings())
@settings(max_examples=150, deadline=None)
def test_reads_cover_the_halo_in_phase_and_in_one_shape(tiling: Tiling) -> None:
    for tile in tiling:
        for d in range(2):
            (r0, r1), (w0, w1) = tile.read[d], tile.write[d]
            before, after = tiling.halo[d]
            assert r1 - r0 == tiling.tile[d]
            assert r0 % tiling.period[d] == 0
            assert r0 >= 0
            assert r1 <= tiling.padded[d]
            assert r0 <= max(0, w0 - before)
            # the end of a box is rounded up to the period: its last pixel's phase is not known to the tiling
            w1_aligned = -(-w1 // tiling.period[d]) * tiling.period[d]
            assert r1 >= min(tiling.padded[d], w1_aligned + after)
            if w1 < tiling.size[d]:
                assert w1 % tiling.align == 0
                assert w1 % tiling.period[d] == 0


@given(tilings())
@settings(max_examples=60, deadline=None)
def test_inner_is_the_write_box_inside_the_read(tiling: Tiling) -> None:
    grid = np.arange(tiling.padded[0])[:, None] * 1000 + np.arange(tiling.padded[1])
    for tile in tiling:
        (y0, y1), (x0, x1) = tile.read
        (v0, v1), (u0, u1) = tile.write
        np.testing.assert_array_equal(grid[y0:y1, x0:x1][tile.inner], grid[v0:v1, u0:u1])


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    st.integers(0, 100),
    st.sampled_from([1, 4, 16, 32]),
    st.integers(10_000, 4_000_000),
    st.sampled_from([1, 256]),
)
@settings(max_examples=100, deadline=None)
def test_the_chosen_tile_is_valid_and_within_memory(
    size: tuple[int, int], reach: int, period: int, pixels: int, align: int
) -> None:
    halo = ((reach, reach), (reach, reach))
    tile = choose_tile(size, halo, (period, period), pixels=pixels, align=align)
    tiling = Tiling(size, tile, halo, (period, period), align)
    assert tiling.tile == tile
    smallest = tuple(min(a, b) for a, b in zip(tiling.smallest, tiling.padded))
    assert tile[0] * tile[1] <= pixels or tile == smallest


def test_the_chosen_tile_beats_every_square_tile() -> None:
    halo, period, pixels = ((94, 94), (94, 94)), (16, 16), 1200 * 1200
    chosen = Tiling((4096, 3000), choose_tile((4096, 3000), halo, period, pixels=pixels), halo, period)
    squares = [Tiling((4096, 3000), (side, side), halo, period).computed for side in range(224, 1201, 16)]
    assert chosen.computed <= min(squares)


def test_an_image_that_fits_is_one_tile_of_its_own_size() -> None:
    halo, period = ((94, 94), (94, 94)), (16, 16)
    tile = choose_tile((500, 333), halo, period, pixels=10**6)
    tiling = Tiling((500, 333), tile, halo, period)
    assert (len(tiling), tiling.tile, tiling.overlap) == (1, (512, 336), 0.0)


def test_a_tile_that_cannot_hold_its_halo_is_refused_with_the_least_that_works() -> None:
    with pytest.raises(ValueError, match="at least 208 is needed"):
        Tiling((4096, 4096), (192, 192), ((94, 94), (94, 94)), (16, 16))

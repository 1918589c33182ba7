"""Training crops: nothing invented, everything repeatable, rare classes seen."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from whatwhere.data import crops as cutting
from whatwhere.data.augment import (
    Augmentation,
    Geometry,
    blur_weights,
    blurred,
    crop_by,
    draw_geometry,
    draw_intensity,
    vary_intensity,
)
from whatwhere.data.crops import Crops, Store, _place_of
from whatwhere.data.crops_together import Together
from whatwhere.records import VOID, Normalisation

WILD = Augmentation(True, True, True, rotation=180, scale=1.0, elastic=4.0, warp=1.0, blur=1.0, noise=1.0)
STILL = Augmentation(False, False, False, 0, 0, 0, 0, 0, 0, 0, 0, 0)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    crop=st.integers(1, 64),
    values=st.lists(st.integers(0, 254), min_size=1, max_size=4, unique=True),
    seed=st.integers(0, 2**31),
)
def test_augmentation_never_invents_a_mask_value(height, width, crop, values, seed):
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.choice(np.array(values, np.uint8), size=(height, width)))
    geometry = draw_geometry(rng, WILD, (rng.uniform(0, height), rng.uniform(0, width)), (height, width), crop)
    image, target = crop_by(geometry, torch.zeros(2, height, width), labels, crop)
    assert image.shape == (2, crop, crop)
    assert target.shape == (crop, crop)
    assert set(target.unique().tolist()) <= set(values) | {VOID}


@settings(max_examples=30, deadline=None)
@given(angle=st.sampled_from([0.0, 90.0, 180.0, 30.0]), quarters=st.integers(0, 3), seed=st.integers(0, 1000))
def test_image_and_labels_move_together(angle, quarters, seed):
    """An image that shows its own labels still shows them after any geometry."""
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(np.kron(rng.integers(0, 3, (6, 6)), np.ones((12, 12))).astype(np.uint8))
    geometry = Geometry((36, 36), angle, 1.0, (bool(seed % 2), bool(seed % 3)), quarters)
    image, target = crop_by(geometry, labels[None].float(), labels, 40)
    assert (image[0].round() == target.float()).float().mean() > 0.93  # mixed only along the blocks' edges


@settings(max_examples=30, deadline=None)
@given(strength=st.sampled_from([1.0, 4.0, 12.0]), seed=st.integers(0, 1000), crop=st.integers(1, 120))
def test_bending_is_smooth_stays_within_reach_and_moves_labels_as_the_image(strength, seed, crop):
    rng = np.random.default_rng(seed)
    bending = Augmentation(False, False, False, rotation=0, scale=0, elastic=strength, warp=1.0)
    geometry = draw_geometry(rng, bending, (150, 150), (300, 300), crop)
    places = torch.stack(torch.meshgrid(torch.arange(300.0), torch.arange(300.0), indexing="ij"))
    labels = torch.ones(300, 300, dtype=torch.uint8)
    labels[:, 150:] = 2
    found, target = crop_by(geometry, places, labels, crop)
    assert not (target == VOID).any()  # far from the rim, nothing was asked for beyond what was cut
    assert (found - torch.tensor(geometry.centre)[:, None, None]).abs().max() <= geometry.reach(crop)
    sure = (found[1] - 149.5).abs() > 1
    assert torch.equal(target[sure], (1 + (found[1] > 149.5).to(torch.uint8))[sure])
    steps = found[0].diff(dim=0)
    assert steps.numel() == 0 or (steps - 1).abs().max() < 0.2 * strength


def test_outside_the_image_is_void_and_zero():
    image, target = crop_by(Geometry((2, 2), 10.0), torch.ones(1, 4, 4), torch.zeros(4, 4, dtype=torch.uint8), 16)
    assert (target == VOID).sum() > 200
    assert image[0][target == VOID].abs().max() <= 0.5 + 1e-6


def test_intensity_off_changes_nothing():
    image = torch.randn(3, 9, 9)
    assert torch.equal(vary_intensity(draw_intensity(np.random.default_rng(0), STILL, (3, 9, 9)), image), image)


def crops(labels, augmentation=STILL, class_aware=0.5, crop=16):
    image = np.repeat(labels[..., None], 3, axis=2).astype(np.uint8)
    present = tuple(int(v) for v in np.unique(labels))
    store = Store([lambda: (image, labels)] * 3, limit=10**9)
    return Crops(store, (present,) * 3, Normalisation((0.0,) * 3, (1.0,) * 3), crop, augmentation, class_aware, seed=7)


def test_each_image_is_blurred_by_its_own_gaussian():
    images, sigmas = torch.randn(3, 2, 9, 12, generator=torch.Generator().manual_seed(0)), (0.0, 0.5, 1.2)
    found = blurred(images, torch.tensor([blur_weights(sigma) for sigma in sigmas]))
    assert torch.equal(found[0], images[0])
    for image, sigma, one in zip(images[1:], sigmas[1:], found[1:]):
        for channel, answer in zip(image.numpy(), one.numpy()):
            expected = ndimage.gaussian_filter(channel, sigma, radius=3, mode="nearest")
            np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5)


def test_crops_of_a_seed_are_always_the_same_whatever_the_batch():
    labels = np.random.default_rng(0).integers(0, 2, (64, 64)).astype(np.uint8)
    first = crops(labels, WILD).batches(4, start=0)
    later = crops(labels, WILD).batches(2, start=2, workers=3)
    next_images, next_targets = next(first), next(first)
    del next_images
    images = torch.cat([next(later)[0], next(later)[0]])
    assert torch.equal(images, next_targets[0])
    first.close()
    later.close()


@pytest.mark.parametrize(("upright", "name"), [(1, "flip_horizontal"), (0, "flip_vertical")])
def test_only_what_may_be_mirrored_is(upright, name):
    """Of each geometry: whether it is turned upside down, and whether left and right change places."""
    rng, allowed = np.random.default_rng(0), replace(STILL, **{name: True})
    seen = [draw_geometry(rng, allowed, (8, 8), (16, 16), 8).mirror for _ in range(30)]
    assert {mirror[upright] for mirror in seen} == {True, False}
    assert {mirror[1 - upright] for mirror in seen} == {False}


def test_an_image_that_is_smaller_than_a_crop_lies_in_its_middle():
    found = draw_geometry(np.random.default_rng(0), STILL, (1.0, 9.0), (10, 12), 32)
    assert found.centre == (5, 6)


def test_crops_of_another_seed_are_others():
    labels = np.random.default_rng(0).integers(0, 2, (64, 64)).astype(np.uint8)
    one, other = (replace(crops(labels), seed=seed) for seed in (0, 1))
    assert not any(torch.equal(one.crop_number(number)[1], other.crop_number(number)[1]) for number in range(5))


@pytest.mark.parametrize("size", [(30, 300), (300, 30)])
def test_crops_come_from_all_of_an_image_that_is_long_or_high(size):
    along = np.broadcast_to(np.arange(300) // 30, (30, 300)).astype(np.uint8)
    source = crops(np.ascontiguousarray(along if size == along.shape else along.T), class_aware=0.0)
    seen = torch.cat([source.crop_number(number)[1].flatten() for number in range(80)]).unique()
    assert seen.tolist() == list(range(10)), "each tenth of it"


def test_making_crops_leaves_later_threads_as_many_of_torch_s_as_before():
    """Or all that comes after a training would run on one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        batches = crops(np.zeros((20, 20), np.uint8)).batches(2, start=0, workers=2)
        next(batches)
        batches.close()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


def test_two_processes_make_the_batch_of_one():
    labels = np.random.default_rng(0).integers(0, 2, (64, 64)).astype(np.uint8)
    whole = next(crops(labels, WILD).batches(4, start=3))
    parts = [next(crops(labels, WILD).batches(4, start=3, share=(rank, 2))) for rank in (0, 1)]
    assert torch.equal(whole[0], torch.cat([part[0] for part in parts]))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    crop=st.integers(2, 64),
    channels=st.sampled_from([1, 3, 4]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    augmentation=st.sampled_from(
        [WILD, replace(WILD, warp=0.5, blur=0.3, noise=0.3), replace(WILD, elastic=0.0), STILL]
    ),
    seed=st.integers(0, 2**31),
)
def test_crops_made_together_are_those_made_one_by_one(height, width, crop, channels, dtype, augmentation, seed):
    """But for pixels that lie on the edge between two classes, to rounding."""
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 3, (12, 12)), np.ones((8, 8)))[:height, :width].astype(np.uint8)
    image = (rng.random((height, width, channels)) * 200).astype(dtype)
    normalisation = Normalisation((90.0,) * channels, (60.0,) * channels, dtype)
    store = Store([lambda: (image, labels)], limit=10**9)
    source = Crops(store, ((0, 1, 2),), normalisation, crop, augmentation, 0.5, seed=seed)
    together = Together(normalisation, augmentation, crop, "cpu")
    images, targets = together([source.draw(number) for number in range(5)])
    expected = [source.crop_number(number) for number in range(5)]
    torch.testing.assert_close(images, torch.stack([image for image, _ in expected]), rtol=1e-3, atol=2e-3)
    assert (targets != torch.stack([target for _, target in expected])).sum() <= 3 + 0.01 * targets.numel()


@pytest.mark.parametrize("full", ["", "CUDA out of memory", "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED"])
def test_batches_are_made_on_a_gpu_or_where_it_is_full_on_the_cpu(monkeypatch, full):
    """With a GPU that is a CPU: whether a real one makes the same is a test of its own."""
    asked = []

    class Elsewhere(Together):
        def __init__(self, normalisation, augmentation, crop, device):
            asked.append(device)
            super().__init__(normalisation, augmentation, crop, "cpu")

        def __call__(self, drawn):
            if full:
                raise RuntimeError(full)
            return super().__call__(drawn)

    monkeypatch.setattr(cutting, "Together", Elsewhere)
    monkeypatch.setattr(cutting, "_begin_thread", lambda _device: None)
    labels = np.random.default_rng(0).integers(0, 2, (64, 64)).astype(np.uint8)
    there, here = (crops(labels, WILD).batches(4, start=3, workers=2, device=device) for device in ("cuda:1", "cpu"))
    for _ in range(3):
        torch.testing.assert_close(next(there)[0], next(here)[0], rtol=1e-3, atol=2e-3)
    there.close()
    here.close()
    assert set(asked) == {"cuda:1"}


def test_an_error_that_is_no_lack_of_memory_ends_a_run(monkeypatch):
    def broken(*_):
        raise RuntimeError("device-side assert triggered")

    monkeypatch.setattr(cutting, "Together", lambda *_: broken)
    monkeypatch.setattr(cutting, "_begin_thread", lambda _device: None)
    batches = crops(np.zeros((64, 64), np.uint8), WILD).batches(4, start=0, device="cuda:0")
    with pytest.raises(RuntimeError, match="device-side"):
        next(batches)


def test_rare_class_is_seen():
    labels = np.zeros((200, 200), np.uint8)
    labels[3:5, 190:192] = 1  # 4 pixels of 40,000
    seen = [bool((crops(labels).crop_number(number)[1] == 1).any()) for number in range(60)]
    unaware = [bool((crops(labels, class_aware=0.0).crop_number(number)[1] == 1).any()) for number in range(60)]
    assert sum(seen) >= 10 > sum(unaware)


def test_a_crop_without_augmentation_is_a_piece_of_the_image():
    labels = np.random.default_rng(1).integers(0, 250, (50, 60)).astype(np.uint8)
    image, target = crops(labels).crop_number(5)
    assert torch.equal(image[0], target.float())


def test_every_image_once_an_epoch():
    seen = []
    store = Store([lambda i=i: (np.full((8, 8, 1), i, np.uint8), np.zeros((8, 8), np.uint8)) for i in range(5)], 0)
    source = Crops(store, ((0,),) * 5, Normalisation((0.0,), (1.0,)), 4, STILL, 0.0, seed=3)
    seen = [int(source.crop_number(number)[0].max()) for number in range(10)]
    assert sorted(seen[:5]) == sorted(seen[5:]) == [0, 1, 2, 3, 4]
    assert len(store._kept) == 0  # nothing is kept beyond the limit


def test_a_pixel_of_a_class_is_found_in_a_large_image(monkeypatch):
    monkeypatch.setattr("whatwhere.data.crops._LOOKED_AT", 100)
    labels = np.zeros((400, 300), np.uint8)
    labels[40:90, 200:260] = 1
    labels[399, 299] = 2
    rng = np.random.default_rng(0)
    found = {_place_of(rng, labels, 1) for _ in range(200)}
    assert len(found) > 100
    assert all(labels[place] == 1 for place in found)
    assert _place_of(rng, labels, 2) == (399, 299)
    assert _place_of(rng, labels, 3) is None


def _counted(count: int, limit: int, rolling: bool = True) -> tuple[Store, list[int]]:
    reads: list[int] = []

    def load(index: int):
        reads.append(index)
        return np.full((20, 20, 1), index, np.uint8), np.full((20, 20), index % 2, np.uint8)

    return Store([lambda i=i: load(i) for i in range(count)], limit, rolling=rolling), reads


def test_images_that_do_not_fit_are_read_once_for_several_crops_and_all_are_seen():
    """Room for 12 of 60: read anew for every crop, 2000 crops would read nearly 2000 times."""
    store, reads = _counted(60, 12 * 800)
    presence = tuple((index % 2,) for index in range(60))
    crops = Crops(store, presence, Normalisation((0.0,), (1.0,)), 8, STILL, 0.3, seed=1, window=11)
    seen = [int(crops.crop_number(number)[0][0, 0, 0]) for number in range(2000)]
    counts = np.bincount(seen, minlength=60)
    assert counts.min() >= 8, "every image is learnt from"
    assert counts.max() <= 90
    assert len(reads) < 500
    again = Crops(_counted(60, 10**6)[0], presence, Normalisation((0.0,), (1.0,)), 8, STILL, 0.3, seed=1, window=11)
    assert [int(again.crop_number(number)[0][0, 0, 0]) for number in (0, 7, 1999)] == [seen[n] for n in (0, 7, 1999)]
    classes = [int(crops.crop_number(number)[1][0, 0]) for number in range(500)]
    assert 150 < sum(classes) < 350


@pytest.mark.parametrize("window", [0, 3])
def test_images_without_labels_are_passed_over_unless_all_are(window):
    presence = tuple(() if index in (1, 4) else (index % 2,) for index in range(7))
    source = Crops(_counted(7, 10**6)[0], presence, Normalisation((0.0,), (1.0,)), 8, STILL, 0.3, seed=1, window=window)
    seen = [int(source.draw(number).raw[0, 0, 0]) for number in range(300)]
    assert set(seen) == {0, 2, 3, 5, 6}
    in_turn = replace(source, class_aware=0.0, window=0)
    turns = np.sort([[int(in_turn.draw(5 * epoch + n).raw[0, 0, 0]) for n in range(5)] for epoch in range(9)])
    assert (turns == [0, 2, 3, 5, 6]).all(), "all others come once an epoch"
    untold = replace(source, presence=((),) * 7)
    assert {int(untold.draw(number).raw[0, 0, 0]) for number in range(300)} == set(range(7))


@pytest.mark.parametrize("window", [0, 1, 7, 59, 60, 150])
def test_images_of_a_class_are_drawn_as_from_a_list_of_all_that_hold_it(window):
    presence = tuple(tuple(c for c in range(4) if index % (5 * c + 1) == 0) for index in range(60))
    store = _counted(60, 10**6)[0]
    source = Crops(store, presence, Normalisation((0.0,), (1.0,)), 8, STILL, 1.0, seed=1, window=window)
    for number in range(0, 1500, 7):
        here = {source._at(number // 8 + later) for later in range(window)}
        for wanted in range(4):
            every = [index for index, held in enumerate(presence) if wanted in held]
            held = [index for index in every if index in here] or every
            expected = held[np.random.default_rng(number).integers(len(held))]
            assert source._holding(np.random.default_rng(number), wanted, number) == expected


def test_a_store_keeps_what_was_asked_for_last_and_at_least_one():
    store, reads = _counted(4, 2 * 800)
    for index in (0, 1, 0, 2, 0, 1):
        assert store[index][0][0, 0, 0] == index
    assert reads == [0, 1, 2, 1], "2 took the place of 1, and 1 of 2"
    tiny, again = _counted(2, 1)
    assert [int(tiny[0][0][0, 0, 0]) for _ in range(3)] == [0, 0, 0]
    assert again == [0]
    first, others = _counted(3, 2 * 800, rolling=False)
    for index in (0, 1, 2, 0, 1, 2):
        assert first[index][0][0, 0, 0] == index
    assert others == [0, 1, 2, 2], "what is judged again and again in one order would never be there"

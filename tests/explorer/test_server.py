"""What the server answers is what the network does: compared with the network itself and with its windows."""

from __future__ import annotations

import base64
import io
import re
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile
import torch
from desks import labelled, serving
from numpy.typing import NDArray
from painting import model_of, picture, unet
from PIL import Image
from torch import nn

from tiny import disc_picture
from whatwhere.data.folder import Sample
from whatwhere.data.sets import from_arrays, from_samples
from whatwhere.errors import DataError
from whatwhere.explain.study import path_means
from whatwhere.explorer import Desk, create_app
from whatwhere.explorer.drawing import geometry
from whatwhere.explorer.edits import Edit, altered
from whatwhere.explorer.errors import RefusalError
from whatwhere.explorer.lens import Lens
from whatwhere.explorer.shown import SIDE, Shown, cut_to_size, open_shown
from whatwhere.judge import Judge


def pixels(packed: str, size: tuple[int, int] = (64, 64)) -> NDArray[np.uint8]:
    return np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8).reshape(size)


def ask(client: httpx.Client, question: str, **record: Any) -> Any:
    answer = client.post(f"/api/{question}", json={"model": "m0", "image": "i0", **record})
    assert answer.status_code == 200, answer.text
    return answer.json()


def whole(lens: Lens, shown: Shown, **options: Any) -> torch.Tensor:
    """The network's own answer, by its own arguments."""
    with torch.inference_mode(), lens.fast:
        logits: torch.Tensor = lens.network(lens.input(shown), **options)[0].float()
    return logits


def test_the_session_lists_what_there_is(client: httpx.Client) -> None:
    found = client.get("/api/session").json()
    assert [model["name"] for model in found["models"]] == ["full", "no skips"]
    assert found["models"][1]["title"] == "U-Net of depth 2, no skips"
    assert [image["name"] for image in found["images"]] == [f"disc {k}" for k in range(6)]
    assert all(image["truth"] and (image["width"], image["height"]) == (64, 64) for image in found["images"])


def test_the_portrait_has_every_level_and_path(client: httpx.Client, desk: Desk) -> None:
    found = client.get("/api/models/m0").json()
    names = [layer["name"] for layer in found["layers"]]
    assert names == ["pixel", "encoder.0", "encoder.1", "bottleneck", "decoder.1", "decoder.0", "output"]
    assert [path["name"] for path in found["paths"]] == ["skip 0", "skip 1", "bottleneck"]
    windows = desk.lens("m0").anatomy.windows((1, 3, 256, 256))
    for layer in found["layers"][1:]:
        assert layer["field"] == list(windows.extent(layer["name"]))
    assert [path["name"] for path in client.get("/api/models/m1").json()["paths"]] == ["bottleneck"]


@pytest.mark.parametrize("layer", ["encoder.1", "bottleneck", "decoder.0", "output"])
def test_windows_are_those_of_the_field(layer: str, client: httpx.Client, desk: Desk) -> None:
    found = client.get("/api/models/m0/images/i0").json()["layers"][layer]
    anatomy = desk.lens("m0").anatomy
    windows = anatomy.windows((1, 3, 64, 64))
    for y, x in ((0, 0), (17, 40), (63, 63), (30, 31)):
        unit = (found["cells"]["rows"][y], found["cells"]["columns"][x])
        expected = windows.receptive_field(layer, unit)
        assert (tuple(found["rows"][y]), tuple(found["columns"][x])) == expected


@pytest.mark.parametrize("size", [pytest.param((200, 147), marks=pytest.mark.slow), (96, 64)])
def test_windows_repeat_with_the_period_away_from_the_rims(size: tuple[int, int]) -> None:
    desk = Desk([("net", model_of(unet(depth=2, classes=2), classes=2))], data=None)
    lens, shown = desk.lens("m0"), cut_to_size("i", "large", picture(*size))
    found, windows = geometry(lens, shown)["layers"], lens.windows(size)
    for layer in ("encoder.0", "encoder.1", "bottleneck", "decoder.1", "decoder.0", "output"):
        (height, width), of = found[layer]["grid"], found[layer]
        for y, x in zip(range(size[0]), (column % size[1] for column in range(size[0]))):
            unit = (of["cells"]["rows"][y], of["cells"]["columns"][x])
            assert unit[0] < height
            assert unit[1] < width
            assert (tuple(of["rows"][y]), tuple(of["columns"][x])) == windows.receptive_field(layer, unit)


def test_the_untouched_painting_is_the_networks(client: httpx.Client, desk: Desk) -> None:
    found = ask(client, "painting")
    logits = whole(desk.lens("m0"), desk.image("i0"))
    assert np.array_equal(pixels(found["labels"]), logits.argmax(0).numpy())
    np.testing.assert_allclose(pixels(found["probability"]), logits.softmax(0).amax(0) * 255, atol=1)
    assert found["changed"] == 0
    assert found["scores"] == found["full_scores"]


def test_scores_are_those_of_judge(client: httpx.Client, desk: Desk) -> None:
    found = ask(client, "painting", image="i2", paths={"bottleneck": "cut"})
    judge = Judge(desk.lens("m0").model.classes)
    judge.add("disc", desk.image("i2").truth, pixels(found["labels"]))  # type: ignore[arg-type]
    expected = list(judge.result().iou.values())
    assert [found["scores"]["iou"][str(k)] for k in (0, 1)] == pytest.approx(expected)


def test_a_cut_skip_is_the_networks_own_argument(client: httpx.Client, desk: Desk) -> None:
    found = ask(client, "painting", paths={"skip 0": "cut"})
    expected = whole(desk.lens("m0"), desk.image("i0"), skips={0: "cut"}).argmax(0).numpy()
    assert np.array_equal(pixels(found["labels"]), expected)
    before = whole(desk.lens("m0"), desk.image("i0")).argmax(0).numpy()
    assert found["changed"] == pytest.approx((expected != before).mean())


def test_fading_goes_from_all_to_the_mean(client: httpx.Client) -> None:
    at = {hold: ask(client, "painting", paths={"skip 1": hold})["probability"] for hold in ("pass", 1, 0.5, 0, "mean")}
    assert at["pass"] == at[1]
    assert at[0] == at["mean"]
    assert len({at["pass"], at[0.5], at["mean"]}) == 3


def test_the_mean_is_over_the_images_of_the_desk(desk: Desk) -> None:
    lens = desk.lens("m0")
    shown = [desk.image(f"i{k}") for k in range(6)]
    mean = torch.stack([lens.carried(one)[0].float().mean((0, 2, 3)) for one in shown]).mean(0)
    torch.testing.assert_close(lens.means[0].flatten(), mean, rtol=1e-3, atol=1e-3)


def test_what_no_window_reaches_does_not_change(client: httpx.Client, desk: Desk) -> None:
    stroke = {"kind": "grey", "x": 5, "y": 6, "radius": 3}
    found = ask(client, "painting", edits=[stroke])
    edited = found["edited"]
    assert edited["outside_changed"] == 0
    assert edited["largest_outside"] == 0.0
    top, bottom, left, right = edited["window"]
    spans = client.get("/api/models/m0/images/i0").json()["layers"]["output"]
    sees = [(start <= 9 and stop > 3) for start, stop in spans["rows"]]
    assert (top, bottom) == (sees.index(True), len(sees) - sees[::-1].index(True))
    assert right < 64
    assert left == 0
    expected = altered(desk.image("i0").raw, [Edit("grey", 5, 6, 3)])
    shown = base64.b64decode(found["picture"].partition(",")[2])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown))), expected)


def test_a_class_that_is_switched_off_is_brushed_over_like_any() -> None:
    network = unet(depth=1, classes=3)
    with torch.no_grad():
        network.head.bias[2] = -torch.inf
    with serving(create_app(Desk([("off", model_of(network))], data=labelled(1)))) as client:
        edited = ask(client, "painting", edits=[{"kind": "grey", "x": 9, "y": 9, "radius": 4}])["edited"]
    assert (edited["outside_changed"], edited["largest_outside"]) == (0, 0.0)


def test_a_pixel_is_told_as_the_network_paints_it(client: httpx.Client, desk: Desk) -> None:
    found = ask(client, "pixel", x=20, y=33)
    here = whole(desk.lens("m0"), desk.image("i0"))[:, 33, 20].softmax(0)
    assert found["prediction"] == int(here.argmax())
    np.testing.assert_allclose(found["probabilities"], here, atol=1e-2)
    assert [cut["absent"] for cut in found["cuts"]] == [["skip 0"], ["skip 1"], ["bottleneck"]]
    assert found["untouched"] == found["prediction"]
    without = whole(desk.lens("m0"), desk.image("i0"), skips={0: desk.lens("m0").means[0]})[:, 33, 20].softmax(0)
    assert found["cuts"][0]["chance"] == pytest.approx(float(without.max()), abs=1e-2)
    if float(without.topk(2).values.diff().abs()) > 0.02:
        assert found["cuts"][0]["label"] == int(without.argmax())
    assert found["cuts"][0]["probability"] == pytest.approx(float(without[found["prediction"]]), abs=1e-2)
    assert found["truth"] == int(desk.image("i0").truth[33, 20])  # type: ignore[index]
    if found["flip"]:
        assert found["flip"]["label"] != found["prediction"]


def test_evidence_adds_up(client: httpx.Client) -> None:
    found = ask(client, "evidence", x=20, y=33)
    assert found["completeness"] <= 0.01
    assert pixels(found["evidence"]).shape == (64, 64)
    assert 0 <= found["half"] <= found["most"]


def test_where_no_other_class_can_be_there_is_no_evidence() -> None:
    network = unet(depth=1, classes=2)
    with torch.no_grad():
        network.head.bias[1] = -torch.inf
    with serving(create_app(Desk([("off", model_of(network, classes=2))], data=labelled(1)))) as client:
        answer = client.post("/api/evidence", json={"model": "m0", "image": "i0", "x": 9, "y": 9})
    assert answer.status_code == 422
    assert "every class but" in answer.json()["error"]["given"]


def test_evidence_is_of_the_image_as_it_is_brushed(client: httpx.Client) -> None:
    hidden = {"kind": "grey", "x": 20, "y": 33, "radius": 12}
    before, after = ask(client, "evidence", x=20, y=33), ask(client, "evidence", x=20, y=33, edits=[hidden])
    assert before["evidence"] != after["evidence"]
    assert after["evidence"] == ask(client, "evidence", x=20, y=33, edits=[hidden])["evidence"]


@pytest.mark.parametrize("what", ["evidence", "skips"])
def test_long_work_ends_when_the_page_is_closed(desk: Desk, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    begun, ended = threading.Event(), threading.Event()

    def slow(*given: Any) -> dict[str, Any]:
        stopped = given[-1]
        begun.set()
        deadline = time.monotonic() + 60
        while not stopped() and time.monotonic() < deadline:
            time.sleep(0.02)
        if stopped():
            ended.set()
        raise InterruptedError

    monkeypatch.setattr(desk, what, slow)
    with serving(create_app(desk)) as client:
        asked = ("POST", "/api/evidence") if what == "evidence" else ("GET", "/api/models/m0/skips?image=i0")
        with httpx.Client(base_url=client.base_url) as page, pytest.raises(httpx.ReadTimeout):
            page.request(*asked, json={}, timeout=1)
        assert begun.wait(30)
        assert ended.wait(30)


def test_shapley_values_that_nobody_wants_are_given_up(desk: Desk) -> None:
    looked = iter([False, False, True])
    with pytest.raises(InterruptedError):
        desk.skips("m0", "i0", lambda: next(looked))


def test_levels_are_read_in_the_background(client: httpx.Client) -> None:
    for _ in range(600):
        state = client.get("/api/models/m0/probes").json()
        if state["ready"]:
            break
        assert state["why"] is None
        time.sleep(0.1)
    assert state["ready"]
    assert set(state["levels"]) >= {"encoder.0", "bottleneck", "decoder.0"}
    paintings = client.get("/api/models/m0/images/i0/levels").json()["layers"]
    assert all(pixels(layer["painting"]).shape == (64, 64) for layer in paintings)
    readings = ask(client, "pixel", x=3, y=4)["readings"]
    assert all(sum(of) == pytest.approx(1) for of in readings.values())
    labels = {layer["name"]: pixels(layer["painting"]) for layer in paintings}
    assert all(int(np.argmax(of)) == labels[name][4, 3] for name, of in readings.items())
    assert client.get("/api/models/m0/presence", params={"image": "i0"}).json()["visible"] == 0.005


def test_levels_that_the_labels_do_not_ask_for_are_said_to_be_none() -> None:
    images, masks = zip(*(disc_picture(seed, 64) for seed in range(3)))
    flat = from_arrays(list(images), [np.zeros_like(mask) for mask in masks], ["a", "b", "c"])
    desk = small_desk(data=flat)
    reading = desk.readings["m0"]
    while not reading.state()["ready"]:
        time.sleep(0.05)
    assert reading.state()["why"] == "the labels of these images hold fewer than two classes"
    assert reading.known().levels is None  # what else was measured can be had


def test_before_levels_are_read_one_is_told_to_wait() -> None:
    desk = Desk([("net", model_of(unet(depth=1, classes=2), classes=2))], data=labelled(3))
    desk.readings["m0"]._start = lambda: None  # type: ignore[method-assign]
    with serving(create_app(desk)) as client:
        answer = client.get("/api/models/m0/images/i0/levels")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert answer.json()["share"] == 0


def test_strongest_maps_are_those_that_vary_most(client: httpx.Client, desk: Desk) -> None:
    maps = client.get("/api/models/m0/images/i0/features", params={"layer": "bottleneck"}).json()["maps"]
    features = desk.lens("m0").features(desk.image("i0"))["bottleneck"][0].float().numpy()
    order = np.argsort(-features.std((1, 2)))[: len(maps)]
    assert [one["channel"] for one in maps] == order.tolist()
    best = maps[0]["patches"][0]
    values = [desk.lens("m0").features(desk.image(f"i{k}"))["bottleneck"][0, order[0]].float() for k in range(6)]
    winner = int(np.argmax([value.max() for value in values]))
    row, column = divmod(int(values[winner].argmax()), values[winner].shape[1])
    assert (best["y"] // 4, best["x"] // 4) == (row, column)
    patch = np.asarray(Image.open(io.BytesIO(base64.b64decode(best["picture"].split(",")[1]))).convert("RGB"))
    pieces = np.lib.stride_tricks.sliding_window_view(desk.image(f"i{winner}").rgb, patch.shape)
    assert (pieces == patch).all((-3, -2, -1)).any(), "the patch is of another image"


def test_shapley_values_add_up_to_full_less_none(client: httpx.Client) -> None:
    found = client.get("/api/models/m0/skips", params={"image": "i0"}).json()
    full = ask(client, "painting")["scores"]["interior"]
    none = ask(client, "painting", paths=dict.fromkeys(("skip 0", "skip 1", "bottleneck"), "mean"))
    total = sum(path["interior"] for path in found["paths"])
    assert total == pytest.approx(full - none["scores"]["interior"], abs=1e-6)


def test_where_one_class_alone_has_an_interior_no_score_is_of_what() -> None:
    lines = np.zeros((64, 64), np.uint8)
    lines[:, ::20] = 1
    model = model_of(unet(depth=1, classes=2), classes=2)
    desk = Desk([("net", model)], data=from_arrays([picture(64, 64)], [lines], ["lines"]))
    for found in (desk.painting({"model": "m0", "image": "i0"})["scores"], *desk.skips("m0", "i0")["paths"]):
        assert found["interior"] is None
        assert found["boundary"] is not None


def test_an_image_of_ones_own(client: httpx.Client) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(50, 70)).save(buffer, "PNG")
    answer = client.post("/api/images", params={"name": "mine.png"}, content=buffer.getvalue())
    assert answer.status_code == 201
    record = answer.json()
    assert (record["name"], record["width"], record["height"], record["truth"]) == ("mine.png", 70, 50, False)
    assert ask(client, "painting", image=record["id"])["scores"] is None
    assert client.get(f"/api/images/{record['id']}/truth").status_code == 404
    shown = np.asarray(Image.open(io.BytesIO(client.get(f"/api/images/{record['id']}/picture.png").content)))
    assert np.array_equal(shown, picture(50, 70))
    assert client.get("/api/models/m0/skips", params={"image": record["id"]}).status_code == 422


def test_an_image_of_the_data_has_its_mask_from_there(tmp_path: Path) -> None:
    data = labelled(3)
    for name, seed in (("disc 1", 1), ("disc 2", 9)):  # the second has only the name of one
        Image.fromarray(disc_picture(seed, 64)[0]).save(tmp_path / f"{name}.png")
    paths = [tmp_path / "disc 1.png", tmp_path / "disc 2.png"]
    desk = Desk([("net", model_of(unet(depth=1, classes=2), classes=2))], paths, data)
    found = [(image["name"], image["truth"]) for image in desk.session()["images"]]
    assert found == [("disc 1", True), ("disc 2.png", False), ("disc 0", True), ("disc 2", True)]
    assert np.array_equal(desk.image("i0").truth, disc_picture(1, 64)[1] > 0)  # type: ignore[arg-type]


def test_a_large_image_of_the_data_that_lacks_pixels_keeps_its_mask(tmp_path: Path) -> None:
    image = np.linspace(100, 4000, 50 * (SIDE + 200), dtype=np.uint16).reshape(50, -1)
    image[20:30, 300:700] = 0
    tifffile.imwrite(tmp_path / "wide.tif", image, extratags=[(42113, "s", 0, "0", False)])
    Image.fromarray((image > 2000).astype(np.uint8)).save(tmp_path / "wide.png")
    model = model_of(unet(depth=1, channels=1, classes=2), 1, classes=2)
    data = from_samples([Sample("wide", tmp_path / "wide.tif", tmp_path / "wide.png")], model.classes)
    desk = Desk([("net", model)], [tmp_path / "wide.tif"], data)
    assert [image["truth"] for image in desk.session()["images"]] == [True]


@pytest.mark.parametrize("labels", [False, True])
def test_where_an_image_has_no_data_nothing_is_painted(labels: bool, tmp_path: Path) -> None:
    """Void in the mask is another thing: what lies there is painted."""
    image, mask = disc_picture(3, 40)
    there = np.ones((40, 40), bool)
    there[:9], image[:9] = False, 0
    there &= (image != 0).any(-1)
    mask = (mask > 0).astype(np.uint8)
    mask[30:] = 255
    tifffile.imwrite(tmp_path / "holed.tif", image, photometric="rgb", extratags=[(42113, "s", 0, "0", True)])
    Image.fromarray(mask).save(tmp_path / "mask.png")
    samples = [Sample("holed", tmp_path / "holed.tif", tmp_path / "mask.png")]
    model = model_of(unet(depth=1, classes=2), classes=2)
    data = from_samples(samples, replace(model.classes, void=(255,))) if labels else None
    desk = Desk([("net", model)], [] if labels else [tmp_path / "holed.tif"], data)
    whole = desk.painting({"model": "m0", "image": "i0"})
    assert np.array_equal(pixels(whole["labels"], (40, 40)) != 255, there)
    cut = desk.painting({"model": "m0", "image": "i0", "paths": {"bottleneck": "cut", "skip 0": "cut"}})
    moved = pixels(cut["labels"], (40, 40)) != pixels(whole["labels"], (40, 40))
    assert cut["changed"] == pytest.approx(moved.sum() / there.sum())


def test_the_mean_is_over_uploads_where_no_other_image_fits() -> None:
    desk = Desk([("rgb", model_of(unet(), 3)), ("grey", model_of(unet(channels=1), 1))], data=labelled(2))
    buffer = io.BytesIO()
    Image.fromarray(picture(64, 64)[..., 0]).save(buffer, "PNG")
    record = desk.upload("grey.png", buffer.getvalue())
    cuts = desk.pixel({"model": "m1", "image": record["id"], "x": 3, "y": 4})["cuts"]
    assert len(cuts) == len(desk.lens("m1").means)


def test_an_image_is_as_predict_reads_it(tmp_path: Path) -> None:
    """Pixels without data take the mean of the rest, and of a large file only what is shown is kept."""
    image = np.random.default_rng(0).normal(500, 50, (60, SIDE + 20)).astype(np.float32)
    image[:7] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", image, extratags=[(42113, "s", 0, "nan", False)])
    Image.fromarray(picture(8, SIDE + 20)).save(tmp_path / "b.png")
    shown = open_shown("i", "a", tmp_path / "a.tif", (1,))
    assert np.isfinite(shown.raw).all()
    np.testing.assert_allclose(shown.raw[:7, 0, 0], image[7:].mean(), rtol=0.02)
    for one in (shown, open_shown("i", "b", tmp_path / "b.png", (3,))):
        assert one.raw.base is None or one.raw.base.size == one.raw.size


def test_a_zarr_folder_lies_there(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    zarr.save_array(str(tmp_path / "a.zarr"), picture(20, 30))
    assert open_shown("i", "a", tmp_path / "a.zarr", (3,)).size == (20, 30)


def test_an_upload_does_not_read_other_files(tmp_path: Path) -> None:
    desk = Desk([("net", model_of(unet(depth=1, classes=2), classes=2))], data=labelled(1))
    tifffile.imwrite(tmp_path / "secret.ome.tif", picture(16, 16, seed=9), photometric="rgb")
    own = io.BytesIO()
    tifffile.imwrite(own, picture(16, 16), photometric="rgb", ome=True)
    assert desk.upload("own.ome.tif", own.getvalue())["width"] == 16
    described = tifffile.TiffFile(io.BytesIO(own.getvalue())).ome_metadata
    assert described is not None
    part = f'<TiffData IFD="0"><UUID FileName="{tmp_path}/secret.ome.tif">urn:uuid:1</UUID></TiffData>'
    stolen = re.sub(r"<TiffData[^>]*/>|<TiffData.*?</TiffData>", part, described, flags=re.DOTALL)
    assert part in stolen
    other = io.BytesIO()
    tifffile.imwrite(other, picture(16, 16), photometric="rgb", description=stolen.encode(), metadata=None)
    (tmp_path / "other.ome.tif").write_bytes(other.getvalue())
    with tifffile.TiffFile(tmp_path / "other.ome.tif") as followed:  # what would be read by who follows the name
        assert followed.series[0].kind == "ome"
    laid = desk.image(desk.upload("other.ome.tif", other.getvalue())["id"])
    np.testing.assert_array_equal(laid.raw, picture(16, 16))  # its own pages, as `predict` reads them


def test_an_upload_whose_description_is_nonsense_is_soon_read() -> None:
    desk = Desk([("net", model_of(unet(depth=1, classes=2), classes=2))], data=labelled(1))
    odd, began = io.BytesIO(), time.process_time()
    tifffile.imwrite(odd, picture(16, 16), photometric="rgb", description="<OME" * 60_000 + "OME>", metadata=None)
    assert desk.upload("odd.tif", odd.getvalue())["width"] == 16
    assert time.process_time() - began < 3


def test_an_upload_that_is_small_only_on_the_disk() -> None:
    desk = Desk([("net", model_of(unet(depth=1, classes=2), classes=2))], data=labelled(1))
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((3000, 3000, 12), np.float32), compression="deflate", planarconfig="contig")
    with pytest.raises(RefusalError, match="432 MB when it is read"):
        desk.upload("deep.tif", buffer.getvalue())


def test_an_upload_of_a_small_image_in_a_huge_tile(tmp_path: Path) -> None:
    desk = Desk([("net", model_of(unet(depth=1, classes=2), classes=2))], data=labelled(1))
    path = tmp_path / "tile.tif"
    tifffile.imwrite(path, picture(64, 64), photometric="rgb", compression="deflate", tile=(64, 64))
    with tifffile.TiffFile(path, mode="r+b") as tif:
        for side in ("TileWidth", "TileLength"):
            tif.pages.first.tags[side].overwrite(2**14)
    with pytest.raises(RefusalError, match="805 MB when it is read"):
        desk.upload("tile.tif", path.read_bytes())


def test_a_wide_image_lies_there_as_its_middle() -> None:
    raw = picture(40, SIDE + 100)
    shown = cut_to_size("i", "wide", raw)
    assert shown.to_json()["whole"] == {"width": SIDE + 100, "height": 40}
    assert np.array_equal(shown.raw, raw[:, 50:-50])


def test_a_mask_of_which_nothing_that_is_shown_counts_is_none() -> None:
    mask = np.full((40, SIDE + 100), 255, np.uint8)
    mask[:, :30] = 1
    assert cut_to_size("i", "wide", picture(40, SIDE + 100), mask).truth is None


def test_two_windows_do_not_disturb_each_other(client: httpx.Client) -> None:
    first = ask(client, "painting", paths={"skip 0": "cut"})
    ask(client, "painting", image="i1", paths={"skip 1": "mean"}, edits=[{"kind": "blur", "x": 9, "y": 9, "radius": 4}])
    again = ask(client, "painting", paths={"skip 0": "cut"})
    assert first["labels"] == again["labels"]
    assert first["scores"] == again["scores"]


def test_a_newer_question_of_the_same_window_ends_the_older(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def slow(_record: Any, stopped: Any) -> dict[str, Any]:
        for _ in range(200):
            if stopped():
                asked.append(True)
                raise InterruptedError
            time.sleep(0.02)
        return {"evidence": "old"}

    monkeypatch.setattr(desk, "evidence", slow)
    with serving(create_app(desk)) as client:
        answers: list[int] = []
        headers = {"X-Client": "one"}
        older = threading.Thread(
            target=lambda: answers.append(client.post("/api/evidence", json={}, headers=headers).status_code)
        )
        older.start()
        time.sleep(0.3)
        assert client.post("/api/pixel", json={"model": "m0", "image": "i0", "x": 1, "y": 1}).status_code == 200
        monkeypatch.setattr(desk, "evidence", lambda _record, _stopped: {"evidence": "new"})
        assert client.post("/api/evidence", json={}, headers=headers).json() == {"evidence": "new"}
        older.join()
    assert answers == [409]
    assert asked == [True]


def test_a_network_made_elsewhere() -> None:
    class Elsewhere(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.top = nn.Conv2d(3, 4, 3, padding=1)
            self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1)
            self.up = nn.ConvTranspose2d(8, 4, 2, 2)
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            top = self.top(x).relu()
            return self.head(torch.cat([top, self.up(self.down(top).relu())], 1))

    torch.manual_seed(0)
    desk = Desk([("own", model_of(Elsewhere(), classes=2))], data=labelled(2))
    with serving(create_app(desk)) as client:
        found = client.get("/api/models/m0").json()
        assert found["title"] == "Elsewhere"
        assert "skip 0" in [path["name"] for path in found["paths"]]
        labels = pixels(ask(client, "painting")["labels"])
    assert np.array_equal(labels, whole(desk.lens("m0"), desk.image("i0")).argmax(0).numpy())


def test_a_global_layer_is_named() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.Conv2d(4, 2, 1))
    desk = Desk([("norm", model_of(network, classes=2))], data=labelled(2))
    found = desk.portrait("m0")
    assert not found["tileable"]
    assert "whole image" in found["global"]
    assert found["layers"][-1]["field"] is None


def test_values_that_are_no_numbers_are_refused_as_predict_does(tmp_path: Path) -> None:
    """Not declared as no data; read by windows, as a Zarr is, or uploaded."""
    zarr = pytest.importorskip("zarr")
    image = np.ones((20, 30, 1), np.float32)
    image[3, 4] = np.inf
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=image.shape, chunks=(20, 30, 1), dtype="float32")
    array[...] = image
    with pytest.raises(DataError, match="a has values that are NaN or infinite"):
        open_shown("i", "a", tmp_path / "a.zarr", (1,))


def test_an_upload_with_real_transparency_is_named_as_its_owner_named_it() -> None:
    desk = Desk([("net", model_of(unet(depth=1, classes=2), classes=2))], data=labelled(1))
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([picture(16, 16), np.full((16, 16), 90, np.uint8)])).save(buffer, "PNG")
    with pytest.raises(RefusalError, match=r"^holed\.png has 4 channels") as refused:
        desk.upload("holed.png", buffer.getvalue())
    assert refused.value.status == 422


def test_means_follow_what_lies_there() -> None:
    """Without images from the start, they are of all that was uploaded: not of the first alone for ever."""
    desk = Desk([("net", model_of(unet(depth=1, classes=2), classes=2))])
    lens, means = desk.lens("m0"), []
    for seed in range(2):
        buffer = io.BytesIO()
        Image.fromarray(picture(32, 32, seed=seed)).save(buffer, "PNG")
        desk.upload(f"{seed}.png", buffer.getvalue())
        means.append([mean.clone() for mean in lens.means])
    both = path_means(lens.anatomy, [lens.input(shown) for shown in desk._known(lens)])
    for mean, other in zip(means[1], both):
        torch.testing.assert_close(mean, other, rtol=0.02, atol=0.02)
    assert not torch.equal(means[0][0], means[1][0])


def as_png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def small_desk(**how: Any) -> Desk:
    return Desk([("net", model_of(unet(depth=1, classes=2), classes=2))], **how)


def test_an_uploaded_copy_of_a_labelled_image_is_that_image() -> None:
    """Whatever it is called: else it would count as new to the probes that were fitted on it."""
    data = labelled(4)
    desk = small_desk(data=data)
    copy, other = (
        desk.image(desk.upload(name, as_png(image))["id"])
        for name, image in (("mine.png", data.store[2][0]), ("disc 2", picture(64, 64)))
    )
    assert copy.name == "mine.png"
    assert np.array_equal(copy.truth, data.store[2][1])  # type: ignore[arg-type]
    assert other.truth is None
    reading = desk.readings["m0"]
    while not reading.state()["ready"]:
        assert reading.state()["why"] is None
        time.sleep(0.05)
    known = reading.known()
    own = known.painters.parts[known.painters.part[2]]
    assert reading._probes(known, copy) is reading._probes(known, desk.image("i2")) is own
    assert (reading._place(known, copy), reading._place(known, other)) == (2, None)


def test_a_copy_of_a_file_of_the_data_is_known_and_one_that_is_damaged_by_now_is_no_hindrance(tmp_path: Path) -> None:
    samples = []
    for seed in range(3):
        image, mask = disc_picture(seed, 64)
        places = tmp_path / f"{seed}.png", tmp_path / f"mask {seed}.png"
        for array, place in zip((image, (mask > 0).astype(np.uint8)), places):
            Image.fromarray(array).save(place)
        samples.append(Sample(f"disc {seed}", *places))
    model = model_of(unet(depth=1, classes=2), classes=2)
    desk = Desk([("net", model)], data=from_samples(samples, model.classes))
    samples[0].image.write_bytes(b"no image any more")
    record = desk.upload("copy.png", as_png(disc_picture(2, 64)[0]))
    assert (record["truth"], desk.image(record["id"]).source) == (True, "disc 2")
    for sample in samples:  # of the last one is known what it was
        sample.image.unlink()
    for name in ("copy.png", "disc 1.png", "disc 2.png"):
        assert desk.upload(name, as_png(disc_picture(2, 64)[0]))["truth"] is False


def test_of_many_uploads_the_answer_tells_which_went(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whatwhere.explorer.desk._UPLOADS", 2)
    desk = small_desk(data=labelled(1))
    records = [desk.upload("a.png", as_png(picture(32, 32, seed=seed))) for seed in range(3)]
    assert [record["gone"] for record in records] == [[], [], [records[0]["id"]]]
    left = [image["id"] for image in desk.session()["images"]]
    assert left == ["i0", records[1]["id"], records[2]["id"]]


def test_what_the_address_names_has_a_name_of_its_own() -> None:
    model = model_of(unet(depth=1, classes=2), classes=2)
    desk = Desk([("net", model), ("net", model)], data=labelled(2))
    for seed in range(2):
        desk.upload("disc 1", as_png(picture(64, 64, seed=seed)))
    session = desk.session()
    assert [one["name"] for one in session["models"]] == ["net", "net (2)"]
    assert [one["name"] for one in session["images"]] == ["disc 0", "disc 1", "disc 1 (2)", "disc 1 (3)"]

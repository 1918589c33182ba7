"""The same tiles on worker processes: the same bytes, also when a worker is killed in the middle."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from painting import content, model_of, picture, spoil, unet
from PIL import Image
from torch import Tensor

from tiny import Cli
from whatwhere.errors import ClusterError, ModelError
from whatwhere.network import load_model, save_model
from whatwhere.paint import Engine, paint, predict
from whatwhere.paint.claims import renamed
from whatwhere.paint.cluster import Workers, _own_gpu
from whatwhere.paint.scale import pixel_size
from whatwhere.paint.sources import WHOLE
from whatwhere.paint.tiles import Tile, Tiling

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(model_of(unet()), tmp_path_factory.mktemp("model") / "m.safetensors")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as workers:
        yield workers


def _one_worker(threads: int = 1) -> Any:
    """A worker in this process, which so can be watched."""
    return distributed.LocalCluster(
        n_workers=1, threads_per_worker=threads, processes=False, dashboard_address="127.0.0.1:0"
    )


def _save(path: Path, image: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def test_a_killed_worker_loses_nothing(tmp_path: Path, model_file: Path, cluster: Any) -> None:
    image = picture(1500, 1400)
    zarr.create_array(str(tmp_path / "a.zarr"), shape=image.shape, chunks=(256, 256, 3), dtype="uint8")[...] = image
    killed = []

    def kill(_: str, done: int, __: int) -> None:
        if done == 3:
            victim = next(iter(cluster.workers.values())).process.process.pid
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    options: dict[str, Any] = {"tile": 320, "precision": "float32"}
    spread = predict(
        model_file,
        tmp_path / "a.zarr",
        tmp_path / "spread",
        cluster=cluster.scheduler_address,
        progress=kill,
        **options,
    )
    assert killed
    assert not spread.failed, str(spread)
    assert re.search(r"on \d+ workers", str(spread))
    alone = predict(model_file, tmp_path / "a.zarr", tmp_path / "alone", **options)
    assert not alone.failed
    assert content(tmp_path / "spread/a.zarr") == content(tmp_path / "alone/a.zarr")


@pytest.mark.slow
def test_many_small_images_lose_nothing_by_a_killed_worker(
    tmp_path: Path, model_file: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(12):
        Image.fromarray(picture(600, 610, seed=index)).save(tmp_path / f"{index}.png")
    killed, honest = [], Workers._result

    def kill_after_the_first(self: Workers, future: Any) -> Any:
        result = honest(self, future)
        if not killed:
            killed.append(next(iter(cluster.workers.values())).process.process.pid)
            os.kill(killed[0], signal.SIGKILL)
        return result

    monkeypatch.setattr(Workers, "_result", kill_after_the_first)
    spread = predict(model_file, tmp_path, tmp_path / "spread", cluster=cluster.scheduler_address, precision="float32")
    assert killed
    assert not spread.failed, str(spread)
    engine = Engine(model_of(unet()), "float32")
    for index in range(12):
        expected = paint(engine, picture(600, 610, seed=index)).labels
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"spread/{index}.png")), expected)


def test_a_worker_loads_the_model_once(tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(900, 800)
    zarr.create_array(str(tmp_path / "a.zarr"), shape=image.shape, chunks=(64, 64, 3), dtype="uint8")[...] = image
    loads = []
    honest = load_model
    monkeypatch.setattr("whatwhere.paint.cluster.load_model", lambda path: loads.append(path) or honest(path))
    with _one_worker(2) as one:
        done = predict(
            model_file, tmp_path / "a.zarr", tmp_path / "out", cluster=one.scheduler_address, precision="float32",
            tile=320,
        )  # fmt: skip
    assert not done.failed, str(done)
    assert len(loads) == 1


def test_many_small_images_go_the_same_way(tmp_path: Path, model_file: Path, cluster: Any) -> None:
    for index in range(6):
        Image.fromarray(picture(50, 60, seed=index)).save(tmp_path / f"{index}.png")
    (tmp_path / "bad.png").write_text("no image")
    options: dict[str, Any] = {"precision": "float32"}
    spread = predict(model_file, tmp_path, tmp_path / "spread", cluster=cluster.scheduler_address, **options)
    assert [Path(item.input).name for item in spread.failed] == ["bad.png"]
    engine = Engine(model_of(unet()), "float32")
    for index in range(6):
        predict(engine, tmp_path / f"{index}.png", tmp_path / "alone")
        name = f"{index}.png"
        np.testing.assert_array_equal(
            np.asarray(Image.open(tmp_path / "spread" / name)), np.asarray(Image.open(tmp_path / "alone" / name))
        )
    again = predict(model_file, tmp_path, tmp_path / "spread", cluster=cluster.scheduler_address, **options)
    assert sum(item.status == "skipped" for item in again.items) == 6


def test_of_a_link_its_own_name_and_what_lies_beside_it_count(tmp_path: Path, model_file: Path, cluster: Any) -> None:
    """As data stores keep files: without an ending, by names that are numbers."""
    (tmp_path / "in").mkdir()
    (tmp_path / "store").mkdir()
    _save(tmp_path / "store/a.png", picture(60, 60))
    scale = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "store/b.tif", picture(60, 60, seed=1), photometric="rgb", **scale)
    for number, name in enumerate(("a.png", "b.tif")):
        kept = (tmp_path / "store" / name).rename(tmp_path / "store" / str(number))
        (tmp_path / "in" / name).symlink_to(kept)
    (tmp_path / "in/a.pgw").write_text("2\n0\n0\n-2\n10\n20\n")
    options: dict[str, Any] = {"precision": "float32", "cluster": cluster.scheduler_address}
    done = predict(model_file, tmp_path / "in", tmp_path / "out", **options)
    assert not done.failed, str(done)
    assert (tmp_path / "out/a.pgw").read_text() == "2\n0\n0\n-2\n10\n20\n"
    assert pixel_size(tmp_path / "out/b.tif", (60, 60)) == pytest.approx((0.5, 0.5))


def test_what_was_painted_without_workers_counts_with_them(tmp_path: Path, model_file: Path, cluster: Any) -> None:
    Image.fromarray(picture(50, 60)).save(tmp_path / "a.png")
    predict(model_file, tmp_path / "a.png", tmp_path / "out", precision="float32")
    options: dict[str, Any] = {"precision": "float32", "cluster": cluster.scheduler_address}
    (item,) = predict(model_file, tmp_path / "a.png", tmp_path / "out", **options).items
    assert item.status == "skipped", item.error


def test_workers_go_on_with_what_was_begun_without_them_unless_by_another_backend(
    tmp_path: Path, model_file: Path, cluster: Any
) -> None:
    image = picture(700, 600)
    zarr.create_array(str(tmp_path / "a.zarr"), shape=image.shape, chunks=(64, 64, 3), dtype="uint8")[...] = image
    options: dict[str, Any] = {"precision": "float32", "tile": 320}

    def stop(_name: str, done: int, _all: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(model_file, tmp_path / "a.zarr", tmp_path / "out", progress=stop, **options)
    journal = tmp_path / "out/a.zarr.partial/journal"
    own = journal.read_bytes()
    options |= {"cluster": cluster.scheduler_address}
    journal.write_bytes(own.replace(b"eager float32", b"openvino float32"))
    (item,) = predict(model_file, tmp_path / "a.zarr", tmp_path / "out", **options).items
    assert "begun by openvino float32, and workers paint by eager float32" in item.error
    journal.write_bytes(own)
    seen: list[int] = []
    options |= {"progress": lambda *now: seen.append(now[1])}
    again = predict(model_file, tmp_path / "a.zarr", tmp_path / "out", **options)
    assert not again.failed, str(again)
    assert seen[0] > 1, "it goes on"
    expected = paint(Engine(model_of(unet()), "float32"), image).labels
    np.testing.assert_array_equal(zarr.open_array(str(tmp_path / "out/a.zarr"), mode="r")[...], expected)


def _slow_tile(_recipe: Any, place: Any, _tiling: Tiling, tile: Tile) -> int:
    """The first fails as soon as another is begun, which takes its time."""
    folder = place[0]
    (folder / f"{tile.index}.begun").touch()
    if tile.index == 0:
        while len(list(folder.glob("*.begun"))) < 2:
            time.sleep(0.01)
        raise MemoryError("of this tile")
    time.sleep(0.3)
    (folder / f"{tile.index}.ended").touch()
    return tile.index


def test_where_a_tile_fails_no_worker_writes_any_more(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What memory ran out for is begun anew in the same folder."""

    def once(self: Workers, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.client.submit(function, *arguments, pure=False)

    monkeypatch.setattr(Workers, "_submit", once)
    monkeypatch.setattr("whatwhere.paint.cluster._paint_tile", _slow_tile)
    with (
        _one_worker(2) as one,
        Workers(one.scheduler_address, model_file, "") as workers,
    ):
        with pytest.raises(MemoryError, match="of this tile"):
            list(workers._tiles((tmp_path, WHOLE, tmp_path, {}, ""), Tiling((64, 64), (8, 8)), frozenset()))
        begun, ended = ({path.stem for path in tmp_path.glob(f"*.{word}")} for word in ("begun", "ended"))
        assert begun - {"0"} == ended
        assert 0 < len(ended) < 63, "the others are not begun"


def test_workers_paint_with_the_model_that_is_there_now(tmp_path: Path, cluster: Any) -> None:
    """Other weights, and the same ones for images in other units."""
    image = picture(700, 600)
    zarr.create_array(str(tmp_path / "a.zarr"), shape=image.shape, chunks=(64, 64, 3), dtype="uint8")[...] = image
    first, other = model_of(unet()), model_of(unet(seed=1))
    scaled = replace(first, normalisation=replace(first.normalisation, std=(10.0, 20.0, 90.0)))
    for number, model in enumerate((first, other, first, scaled)):
        file = save_model(model, tmp_path / "model.safetensors")
        out = tmp_path / str(number)
        done = predict(file, tmp_path / "a.zarr", out, cluster=cluster.scheduler_address, precision="float32", tile=320)
        assert not done.failed, str(done)
        expected = paint(Engine(model, "float32"), image).labels
        np.testing.assert_array_equal(zarr.open_array(str(out / "a.zarr"), mode="r")[...], expected)


def test_two_models_mix_nothing_up(tmp_path: Path, cluster: Any) -> None:
    """At once on the same workers, into one folder: each painting is of whom the folder says it is."""
    for index in range(12):
        _save(tmp_path / f"in/{index:02}.png", picture(90, 70, seed=index))
    models = [model_of(unet(seed=seed)) for seed in (0, 1)]
    files = [save_model(model, tmp_path / f"{at}.safetensors") for at, model in enumerate(models)]
    options: dict[str, Any] = {"precision": "float32", "cluster": cluster.scheduler_address}
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda file: predict(file, tmp_path / "in", tmp_path / "out", **options), files))
    for mine, theirs in zip(both[0].items, both[1].items):
        assert {mine.status, theirs.status} == {"done", "failed"}
        assert "is there already, from another model" in mine.error + theirs.error
        whose = models[mine.status == "failed"]
        expected = paint(Engine(whose, "float32"), np.asarray(Image.open(mine.input))).labels
        name = Path(mine.input).name
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / name)), expected)
    again = predict(files[0], tmp_path / "in", tmp_path / "out", **options)
    counts = [sum(item.status == status for item in again.items) for status in ("skipped", "failed")]
    assert counts == [len(both[1].failed), len(both[0].failed)]


@pytest.mark.parametrize("kind", ["png", "zarr"])
def test_a_worker_writes_nothing_for_a_run_that_is_gone(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Its client was killed while it computed, and another paints at that place by now."""
    image, out = picture(300, 280), tmp_path / "out"
    if kind == "png":
        _save(tmp_path / "a.png", image)
    else:
        zarr.create_array(str(tmp_path / "a.zarr"), shape=image.shape, chunks=(64, 64, 3), dtype="uint8")[...] = image
    honest = Engine.logits

    def slow(self: Engine, batch: Tensor) -> Tensor:
        renamed(out / f"a.{kind}.partial")
        return honest(self, batch)

    monkeypatch.setattr(Engine, "logits", slow)
    with _one_worker() as one:
        done = predict(model_file, tmp_path / f"a.{kind}", out, cluster=one.scheduler_address, precision="float32")
    assert "is painted into by another run by now" in done.failed[0].error
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == ["predictions.jsonl"]


@pytest.mark.parametrize("hidden", ["a.png.partial", "a.png", "m.safetensors"])
def test_what_a_worker_does_not_see_is_said(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    _save(tmp_path / "a.png", picture(30, 30))
    monkeypatch.setattr("whatwhere.paint.cluster._SHOWN", 0.1)
    client = threading.get_ident()

    def seen(path: Path) -> bool:
        return path.exists() and (path.name != hidden or threading.get_ident() == client)

    monkeypatch.setattr("whatwhere.paint.cluster.is_there", seen)
    with (
        _one_worker() as one,
        pytest.raises(ClusterError, match=f"the worker on .* does not see .*{hidden}; .*the same files"),
    ):
        predict(model_file, tmp_path / "a.png", tmp_path / "out", cluster=one.scheduler_address)
    assert not (tmp_path / "out/a.png").exists()
    assert not (tmp_path / "out/a.png.partial").exists()


@pytest.mark.parametrize(
    ("gone", "words"), [("a.png", "is not there any more"), ("a.png.partial", "was taken away, or emptied")]
)
def test_what_nobody_sees_any_more_is_the_failure_of_one_image(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, gone: str, words: str
) -> None:
    _save(tmp_path / "in/a.png", picture(30, 30))
    _save(tmp_path / "in/b.png", picture(30, 30))
    honest = Workers.submit

    def submit(self: Workers, path: Path, target: Any, *more: Any) -> Any:
        place = path if gone == path.name else target.partial
        if place.name == gone:
            place.rename(tmp_path / "elsewhere")
        return honest(self, path, target, *more)

    monkeypatch.setattr(Workers, "submit", submit)
    monkeypatch.setattr("whatwhere.paint.cluster._SHOWN", 0.1)
    with _one_worker() as one:
        done = predict(model_file, tmp_path / "in", tmp_path / "out", cluster=one.scheduler_address)
    assert [Path(item.input).name for item in done.failed] == ["a.png"]
    assert words in done.failed[0].error
    assert (tmp_path / "out/b.png").exists()


@pytest.mark.parametrize("kind", ["png", "zarr"])
def test_where_no_worker_is_left_it_is_said(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    image = picture(300, 280)
    if kind == "png":
        _save(tmp_path / "a.png", image)
    else:
        zarr.create_array(str(tmp_path / "a.zarr"), shape=image.shape, chunks=(64, 64, 3), dtype="uint8")[...] = image
    for name, seconds in (("_ALONE", 0.5), ("_LOOK", 0.1)):
        monkeypatch.setattr(f"whatwhere.paint.cluster.{name}", seconds)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as one:
        send = Workers._submit

        def last(self: Workers, *given: Any) -> Any:
            """After the worker has left for good."""
            one.sync(one.scheduler.retire_workers, close_workers=True)
            while self.client.nthreads():
                time.sleep(0.01)
            return send(self, *given)

        monkeypatch.setattr(Workers, "_submit", last)
        with pytest.raises(ClusterError, match="no workers are left"):
            predict(model_file, tmp_path / f"a.{kind}", tmp_path / "out", cluster=one.scheduler_address)


def test_memory_that_runs_out_on_a_worker_makes_smaller_tiles(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(900, 800)
    zarr.create_array(str(tmp_path / "a.zarr"), shape=image.shape, chunks=(64, 64, 3), dtype="uint8")[...] = image
    honest = Engine.logits

    def scarce(self: Engine, batch: Tensor) -> Tensor:
        if batch.shape[-1] * batch.shape[-2] > 500 * 500:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return honest(self, batch)

    monkeypatch.setattr(Engine, "logits", scarce)
    with _one_worker() as one:
        done = predict(
            model_file, tmp_path / "a.zarr", tmp_path / "out", cluster=one.scheduler_address, precision="float32"
        )
    assert not done.failed, str(done)
    assert "memory ran out with tiles of 900x800; went on with" in str(done)
    expected = paint(Engine(model_of(unet()), "float32"), image).labels
    np.testing.assert_array_equal(zarr.open_array(str(tmp_path / "out/a.zarr"), mode="r")[...], expected)


def test_threads_of_a_worker_go_through_the_network_one_by_one(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(900, 800)
    zarr.create_array(str(tmp_path / "in/a.zarr"), shape=image.shape, chunks=(64, 64, 3), dtype="uint8")[...] = image
    for index in range(4):
        Image.fromarray(picture(50, 60, seed=index)).save(tmp_path / f"in/{index}.png")
    inside, together, honest = [], [], Engine.logits

    def slow(self: Engine, batch: Tensor) -> Tensor:
        inside.append(batch)
        together.append(len(inside))
        time.sleep(0.05)
        try:
            return honest(self, batch)
        finally:
            inside.pop()

    monkeypatch.setattr(Engine, "logits", slow)
    with _one_worker(4) as one:
        done = predict(
            model_file, tmp_path / "in", tmp_path / "out", cluster=one.scheduler_address, precision="float32", tile=320
        )
    assert not done.failed, str(done)
    assert len(together) > 8
    assert max(together) == 1


def test_a_scheduler_without_workers_is_said(model_file: Path) -> None:
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as empty,
        pytest.raises(ClusterError, match=r"no workers at inproc.*with at least one worker"),
    ):
        Workers(empty.scheduler_address, model_file, "")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tls://127.0.0.1:1", "tcp://127.0.0.1", "gopher://x:1"])
def test_an_address_that_does_not_answer_is_said(
    model_file: Path, address: str, run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whatwhere.paint.cluster._PATIENCE", 1)
    Image.fromarray(picture(20, 20)).save(tmp_path / "a.png")
    done = run_cli("predict", model_file, "a.png", "-o", "out", "--cluster", address)
    assert done.code == 2, done.err
    assert f"no workers at {address}" in " ".join(done.err.split())
    assert "use local:N" in " ".join(done.err.split())


def test_what_dask_says_of_a_lost_scheduler_is_said_in_one_line_only(
    model_file: Path, cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("distributed.client")
    log.addHandler(caplog.handler)
    try:
        with Workers(cluster.scheduler_address, model_file, ""):
            log.error("a traceback")
        assert "a traceback" not in caplog.text
        log.error("of somebody else's client")
        assert "of somebody else's" in caplog.text
    finally:
        log.removeHandler(caplog.handler)


def test_workers_are_counted_from_one(model_file: Path) -> None:
    with pytest.raises(ClusterError, match="local:N with N at least 1"):
        Workers("local:none", model_file, "")


def test_local_workers_paint_what_can_be_painted(run_cli: Cli, model_file: Path, tmp_path: Path) -> None:
    """As people call it, in processes of their own."""
    image = picture(300, 280)
    for name in ("good", "bad"):
        tifffile.imwrite(tmp_path / f"{name}.tif", image, photometric="rgb", tile=(64, 64), compression="zlib")
    spoil(tmp_path / "bad.tif", 7)
    done = run_cli(
        "predict", model_file, "good.tif", "bad.tif", "-o", "out", "--cluster", "local:1", "--probabilities",
        "--precision", "float32",
    )  # fmt: skip
    assert done.code == 1, done.err
    assert "bad.tif: failed" in done.out
    expected = paint(Engine(model_of(unet()), "float32"), image, probabilities=True)
    assert expected.probabilities is not None
    np.testing.assert_array_equal(tifffile.imread("out/good.tif"), expected.labels)
    shares = tifffile.imread("out/good.probabilities.tif") / 255
    np.testing.assert_allclose(shares, expected.probabilities, atol=0.0025)


@pytest.mark.skipif(os.name != "posix", reason="groups of processes")
def test_ctrl_c_ends_local_workers_without_a_word(model_file: Path, tmp_path: Path) -> None:
    """The terminal sends it to all processes of a command."""
    for index in range(60):
        _save(tmp_path / f"in/{index}.png", picture(700, 700, seed=index))
    command = [sys.executable, "-m", "whatwhere", "predict", model_file, tmp_path / "in", "-o", tmp_path / "out"]
    child = subprocess.Popen(
        [*command, "-q", "--precision", "float32", "--cluster", "local:2"], text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in the background it is ignored
    )  # fmt: skip
    while not (tmp_path / "out/predictions.jsonl").exists() and child.poll() is None:
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGINT)
    said, _ = child.communicate(timeout=120)  # which ends when no worker has it open any more
    assert child.returncode == 130, said
    assert "Traceback" not in said


def test_workers_need_the_model_as_a_file(tmp_path: Path) -> None:
    Image.fromarray(picture(20, 20)).save(tmp_path / "a.png")
    with pytest.raises(ModelError, match="a model file that all workers can read"):
        predict(model_of(unet()), tmp_path / "a.png", tmp_path / "out", cluster="local:1")


def test_local_workers_take_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [_own_gpu("auto", name) for name in (0, 1, 2)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert _own_gpu("cpu", 1) == "cpu"
    assert _own_gpu("auto", "tcp://elsewhere:1") == "auto", "its own CUDA_VISIBLE_DEVICES says which"

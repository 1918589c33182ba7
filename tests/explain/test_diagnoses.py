"""Each cause is found in a network broken on purpose in that way, and in no healthy one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from explain_toys import CLASSES, Pair, as_set, fresh, toys, train
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import nn

from whatwhere.explain import Explanation
from whatwhere.explain.anatomy import Path
from whatwhere.explain.causes_in_network import collapsed_skip, dead_bottleneck, normalisation
from whatwhere.explain.causes_in_painting import inverted, never_painted, noisy_labels, short_sighted
from whatwhere.explain.diagnose import diagnose
from whatwhere.explain.diagnosis import Diagnosis, Measurements
from whatwhere.explain.levels import measure_answers
from whatwhere.explain.measured import Measured
from whatwhere.explain.objects import ObjectSize, object_sizes
from whatwhere.explain.stages import prepare, skips_of, study_of
from whatwhere.network import Model, UNet
from whatwhere.records import VOID, Normalisation


def found(model: Model, pairs: Sequence[Pair] | None = None) -> dict[str, Diagnosis]:
    """As `explain` diagnoses, but without fitting probes."""
    data = as_set(pairs if pairs is not None else toys(5, start=1000))
    bench = prepare(model, data, 5, 0, None, lambda what, share: None)  # noqa: ARG005
    study, count = study_of(bench), model.classes.count
    what, where = measure_answers(study.answers, study.samples.spots, classes=count, distance=bench.distance, seed=0)
    reach = bench.anatomy.windows(bench.cases[0].image.shape).reach("output")
    measured = Measurements(
        what=what, where=where, chance=1 / count, skips=skips_of(bench, study),
        window=None if reach is None else sum(reach[0]) + 1,
        objects=object_sizes(bench.cases, bench.aims, model.classes),
        truth=bench.truth,
    )  # fmt: skip
    with bench.fast:
        return {one.cause: one for one in diagnose(model, bench.anatomy, bench.cases, study, measured)}


def copy_of(model: Model) -> Model:
    assert isinstance(model.network, UNet)
    network = UNet(**model.network.config).eval()
    network.load_state_dict(model.network.state_dict())
    return Model(network, model.classes, model.normalisation)


def test_a_healthy_network_is_left_alone(explanation: Explanation) -> None:
    for one in explanation.diagnoses:
        assert not one.found, one
        assert one.words
        assert not one.remedy
    assert len(explanation.diagnoses) == 10


def test_class_never_painted() -> None:
    without_plums = [(image, np.where(labels == 2, 0, labels).astype(np.uint8)) for image, labels in toys(24)]
    seen = found(train(fresh(), without_plums))
    assert seen["class never painted"].found
    assert "never or hardly ever painted: 'plum' (never)." in seen["class never painted"].words
    assert not seen["rare class under-predicted"].found


def test_a_class_of_a_few_painted_pixels_is_not_said_to_be_never_painted() -> None:
    seen = SimpleNamespace(
        model=SimpleNamespace(classes=SimpleNamespace(names=("ground", "cat", "dog"))),
        scores=SimpleNamespace(confusion=np.array([[500_000, 50, 0], [99_960, 40, 0], [30, 0, 0]])),
        chances=np.diag([0.9, 0.2, 0.01]),
    )
    told = never_painted(seen).words  # type: ignore[arg-type]
    assert "'cat' (90 of 100,000 px), 'dog' (never)." in told
    assert "the mean probability is at most 0.2." in told


def test_mapping_inverted(healthy: Model) -> None:
    swapped = [(image, np.array([0, 2, 1], np.uint8)[labels]) for image, labels in toys(5, start=1000)]
    one = found(healthy, swapped)["mapping inverted"]
    assert one.found
    assert "'apple' is painted as 'plum'" in one.words
    assert one.numbers["mean IoU with classes renamed"] > one.numbers["mean IoU as painted"] + 0.2


@pytest.mark.parametrize(
    "constants", [Normalisation((0.0,) * 3, (1.0,) * 3), Normalisation((110.0, 100.0, 90.0), (255.0,) * 3)]
)
def test_normalisation_differs(healthy: Model, constants: Normalisation) -> None:
    one = found(replace(healthy, normalisation=constants))["normalisation differs"]
    assert one.found, one.words
    assert "not in the units" in one.words


def test_sees_too_little() -> None:
    pairs = toys(16, hidden=True)
    torch.manual_seed(0)
    narrow = UNet(3, 3, width=8, depth=1)
    model = train(narrow, pairs, steps=50)
    one = found(model, toys(5, start=1000, hidden=True))["sees too little"]
    # the disc's edge is seen everywhere, the dot that tells which only near the top
    assert one.numbers["window"] < 30
    assert one.found, one.words
    assert "cannot tell what it paints" in one.words
    of_two = found(model, toys(2, start=1000, hidden=True))["sees too little"]
    assert of_two.words.startswith("An output pixel sees")
    assert not of_two.found, "two images are too few for a verdict"


def test_collapsed_skip(healthy: Model) -> None:
    deaf = copy_of(healthy)
    first = next(m for m in deaf.network.decoder[1].modules() if isinstance(m, torch.nn.Conv2d))  # type: ignore[index]
    with torch.no_grad():
        first.weight[:, : first.in_channels // 2] = 0
    one = found(deaf)["collapsed skip"]
    assert one.found
    assert one.words.startswith("skip 1:")
    assert "skip 0" not in one.words


def test_a_skip_of_a_few_live_channels_is_not_to_be_left_out() -> None:
    """Of skip 0 hardly a channel changes, but all hangs on it; skip 1 is not listened to."""
    paths = [Path("skip 0", 0), Path("skip 1", 1), Path("bottleneck", 2)]
    skips = SimpleNamespace(paths=paths, response=(0.9, 0.0, 0.8), constant=False, worth={})
    seen = SimpleNamespace(measured=SimpleNamespace(skips=skips), study=SimpleNamespace(silent=(0.97, 0.1, 0.0)))
    one = collapsed_skip(seen)  # type: ignore[arg-type]
    assert one.found
    assert "0.900 of their spread without it: the few that do deliver all; skip 1:" in one.words
    assert one.words.endswith("it delivers nothing.")
    assert one.remedy.startswith("Leave out skip 1 (train --skips)")
    seen.measured.skips.response = (0.9, 0.5, 0.8)
    alone = collapsed_skip(seen)  # type: ignore[arg-type]
    assert "skip 1" not in alone.words
    assert alone.remedy == "Lower the learning rate if its features died."


def test_dead_bottleneck(healthy: Model) -> None:
    lazy = copy_of(healthy)
    for parameter in lazy.network.up[1].parameters():  # type: ignore[index]
        parameter.data.zero_()
    one = found(lazy)["dead bottleneck"]
    assert one.found
    assert "what lies below skip 1 is idle" in one.words


@pytest.mark.parametrize(
    ("response", "idle"),
    [
        ((0.02, 0.02, 0.1, 0.9, 0.03), "what lies below skip 3 is idle"),
        ((0.9, 0.1, 0.0, 0.0, 0.0), "its deep half idle"),
    ],
)
def test_what_is_idle_lies_below_what_is_used(response: tuple[float, ...], idle: str) -> None:
    names = [*(f"skip {level}" for level in range(4)), "bottleneck"]
    worths = SimpleNamespace(
        paths=[Path(name, level) for level, name in enumerate(names)], response=response, constant=False
    )
    one = dead_bottleneck(SimpleNamespace(measured=SimpleNamespace(skips=worths)))  # type: ignore[arg-type]
    assert one.found
    assert idle in one.words
    assert ("top skip" in one.remedy) == ("deep half" in idle)


def test_the_strength_of_edges_is_told_against_the_image_s_mean() -> None:
    """Of stripes of 4 px, beside an edge everywhere, edges are a little stronger than the mean, with it in the mean."""
    truth = np.tile(np.uint8([0, 0, 0, 0, 1, 1, 1, 1]), (32, 4))
    case, score = (
        SimpleNamespace(truth=truth, raw=truth[..., None] * 100),
        SimpleNamespace(pooled={"mean_boundary_f1": 1.0}),
    )
    seen = SimpleNamespace(
        scores=score, loose=score, measured=SimpleNamespace(what=None), cases=[case], paintings=[truth]
    )
    one = noisy_labels(seen)  # type: ignore[arg-type]
    assert (
        f"{one.numbers['edge under masks']:.2f} times as strong as on average under the edges of the masks" in one.words
    )
    assert one.numbers["edge under masks"] < 2  # against elsewhere it would be more than 4


def test_edges_that_are_not_painted_are_not_measured() -> None:
    truth = np.zeros((32, 32), np.uint8)
    truth[8:24, 8:24] = 1
    case = SimpleNamespace(truth=truth, raw=truth[..., None] * 100)
    score = SimpleNamespace(pooled={"mean_boundary_f1": 0.0})
    one = noisy_labels(
        SimpleNamespace(
            scores=score, loose=score, measured=SimpleNamespace(what=None), cases=[case], paintings=[truth * 0]
        )  # type: ignore[arg-type]
    )
    assert not one.found
    assert "No edge is painted, so none can be compared" in one.words
    assert "edge under painting" not in one.numbers


def test_an_answer_that_ignores_the_image_is_blamed_on_no_path(healthy: Model) -> None:
    black = copy_of(healthy)
    with torch.no_grad():
        black.network.head.weight.zero_()  # type: ignore[union-attr]
    seen = found(black)
    assert seen["constant answer"].found
    assert "the answer does not depend on the image" in seen["constant answer"].words
    for cause in ("dead bottleneck", "collapsed skip", "blocky"):
        assert not seen[cause].found, cause
        assert "does not depend on the image" in seen[cause].words


def test_a_rare_class_is_under_predicted(healthy: Model) -> None:
    starved = copy_of(healthy)
    with torch.no_grad():
        starved.network.head.bias[2] -= _margin(healthy)  # type: ignore[index,union-attr]
    one = found(starved)["rare class under-predicted"]
    assert one.found, one.words
    assert one.words.startswith("'plum' has")


def _margin(model: Model) -> float:
    """How much plums lead on their own pixels, at the median: less that, half of them are lost."""
    leads = []
    for image, labels in toys(5, start=1000):
        with torch.no_grad():
            logits = model.network(model.normalise(image)[None])[0]
        leads.append((logits[2] - logits[:2].amax(0))[torch.from_numpy(labels == 2)])
    return float(torch.cat(leads).quantile(0.6))


def test_boundary_limited_by_label_noise(healthy: Model) -> None:
    rng = np.random.default_rng(0)

    def rough(labels: np.ndarray) -> np.ndarray:
        rows, columns = np.indices(labels.shape).astype(float)
        shift = [gaussian_filter(rng.normal(size=labels.shape), 3) * 30 for _ in range(2)]
        return map_coordinates(labels, [rows + shift[0], columns + shift[1]], order=0, mode="nearest").astype(np.uint8)

    one = found(healthy, [(image, rough(labels)) for image, labels in toys(5, start=1000)])[
        "boundary limited by label noise"
    ]
    assert one.found, one.words
    assert one.numbers["edge under painting"] > one.numbers["edge under masks"]


def test_blocky() -> None:
    one = found(train(fresh(skips=()), toys(24), steps=10))["blocky"]
    assert one.found
    assert "1/4 of the resolution" in one.words


def test_a_network_without_skips_whose_edges_are_sharp_is_not_called_blocky() -> None:
    one = found(train(fresh(skips=()), toys(24), steps=60))["blocky"]
    assert not one.found
    assert "Edges are sharp" in one.words


def test_where_nothing_has_an_edge_nobody_is_blamed_for_edges() -> None:
    empty = [(image, np.zeros_like(labels)) for image, labels in toys(8)]
    told = found(train(fresh(skips=()), empty, steps=10), empty[:5])
    for cause in ("blocky", "boundary limited by label noise"):
        assert not told[cause].found, told[cause].words
        assert "no edge" in told[cause].words


def test_a_network_without_levels_is_not_said_to_have_a_skip() -> None:
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1))
    one = found(train(flat, toys(2), steps=1))["blocky"]
    assert not one.found
    assert one.words == "Features of full resolution reach the decoder by the bottleneck."
    skipping = found(train(fresh(), toys(2), steps=1))["blocky"]
    assert skipping.words == "Features of full resolution reach the decoder by skip 0."


def test_a_network_that_knows_nothing_is_not_called_short_sighted() -> None:
    knows_nothing = train(UNet(3, 3, width=8, depth=1), toys(2), steps=1)
    one = found(knows_nothing, toys(5, start=1000, hidden=True))["sees too little"]
    assert one.numbers["window"] < 30, "small enough to be blamed"
    assert not one.found


def test_a_class_without_a_measured_pixel_is_not_the_worst() -> None:
    """A plum that lies outside of what was cut out of its image: of it nothing went wrong."""
    confusion = np.array([[900, 10, 0], [40, 50, 0], [0, 0, 0]])
    sizes = [ObjectSize(1, "apple", 9, 30.0, 30, 0.1, False), ObjectSize(2, "plum", 1, 600.0, 600, 0.1, False)]
    what, where = Measured(0.6, 0.55, 0.65, 6, 100, "", 0), Measured(0.9, 0.85, 0.95, 6, 100, "", 0)
    measured = SimpleNamespace(objects=sizes, window=200, what=what, where=where, chance=0.5)
    seen = SimpleNamespace(scores=SimpleNamespace(confusion=confusion), measured=measured)
    one = short_sighted(seen)  # type: ignore[arg-type]
    assert "a typical 'apple' is 30 px" in one.words
    assert not one.found
    measured.objects = sizes[1:]
    one = short_sighted(seen)  # type: ignore[arg-type]
    assert one.words.startswith("Not measured")


def test_without_masks_only_what_needs_no_truth_is_diagnosed(healthy: Model) -> None:
    blank = [(image, np.full_like(labels, VOID)) for image, labels in toys(5, start=1000)]
    asked = {"normalisation differs", "constant answer", "dead bottleneck", "collapsed skip"}
    assert set(found(healthy, blank)) == asked


def test_all_painted_as_one_class_is_no_renaming(healthy: Model) -> None:
    """Ground everywhere, where apples fill most: called apple it would fit better, and mean nothing."""
    black = copy_of(healthy)
    with torch.no_grad():
        black.network.head.weight.zero_()  # type: ignore[union-attr]
        black.network.head.bias.copy_(torch.tensor([5.0, 0.0, 0.0]))  # type: ignore[union-attr]
    pairs = []
    for image, labels in toys(5, start=1000):
        full = np.ones_like(labels)
        full[:8] = 0
        pairs.append((image, full))
    seen = found(black, pairs)
    assert not seen["mapping inverted"].found, seen["mapping inverted"].words
    assert seen["class never painted"].found


@pytest.mark.parametrize("confusion", [
    [[0, 0, 1000], [0, 0, 2000], [0, 0, 0]],  # debris everywhere
    [[0, 900], [0, 0]],  # the only class of the masks, called by another name everywhere
    [[10, 890], [0, 0]],  # and nearly everywhere
    [[0, 900, 0], [900, 0, 0], [450, 450, 0]],  # two that fit under each other's names, and one that is nowhere
])  # fmt: skip
def test_names_are_blamed_only_where_several_classes_are_painted_and_all_fit(confusion: list[list[int]]) -> None:
    names = ("ground", "cell", "debris")[: len(confusion)]
    model = SimpleNamespace(classes=SimpleNamespace(names=names))
    one = inverted(SimpleNamespace(model=model, scores=SimpleNamespace(confusion=np.array(confusion))))  # type: ignore[arg-type]
    assert not one.found, one.words


def test_a_network_without_batch_norm_is_not_called_wrongly_normalised() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    one = found(Model(network, CLASSES, Normalisation((0.0,) * 3, (255.0,) * 3)))["normalisation differs"]
    assert not one.found, one.words
    assert "nothing of its training to compare with" in one.words


class Gated(nn.Module):
    """Its first batch norm stands behind a mean over the image: one value an image."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sigmoid())
        self.first, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.first(image) * self.gate(image))
        return answer


def test_a_batch_norm_of_means_over_images_tells_nothing_of_spread() -> None:
    seen = SimpleNamespace(
        anatomy=SimpleNamespace(network=Gated().eval()), cases=[SimpleNamespace(image=torch.randn(1, 3, 32, 32))]
    )
    one = normalisation(seen)  # type: ignore[arg-type]
    assert not one.found, one.words
    assert "nothing of its training to compare with" in one.words

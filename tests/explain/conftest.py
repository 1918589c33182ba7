"""One small net, trained once, for all tests of this room."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from explain_toys import as_set, fresh, toys, train

from whatwhere.data.sets import ImageSet
from whatwhere.explain import Explanation, explain, stages
from whatwhere.explain.pixels import sample_spots
from whatwhere.network import Model


@pytest.fixture(scope="session", autouse=True)
def _few_pixels() -> Iterator[None]:
    """Probes on an eighth of the pixels: the toys are easy, and time is short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "sample_spots", partial(sample_spots, pixels=300))
        yield


@pytest.fixture(scope="session")
def healthy() -> Model:
    return train(fresh(), toys(24))


@pytest.fixture(scope="session")
def held_out() -> ImageSet:
    return as_set(toys(8, start=1000))


@pytest.fixture(scope="session")
def explanation(healthy: Model, held_out: ImageSet) -> Explanation:
    return explain(healthy, held_out)

"""What is switched for whatwhere's own work is as before afterwards, whatever other threads do."""

from __future__ import annotations

from contextlib import nullcontext
from threading import Barrier, Thread

import pytest
import torch

from whatwhere.plain_torch import kept_random, plain_torch


def test_the_last_thread_puts_the_default_dtype_back() -> None:
    inside, first_left = Barrier(2), Barrier(2)
    seen: list[torch.dtype] = []

    def work(leaves_first: bool) -> None:
        with plain_torch():
            inside.wait(30)
            if not leaves_first:
                first_left.wait(30)
                seen.append(torch.get_default_dtype())
        if leaves_first:
            first_left.wait(30)

    torch.set_default_dtype(torch.float64)
    try:
        threads = [Thread(target=work, args=(first,)) for first in (True, False)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [torch.float32]
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_weights_that_learn_are_cast_anew_within_a_caller_s_autocast() -> None:
    """Torch keeps what it has cast until the outermost autocast ends, and the caller's ends last."""
    layer, x = torch.nn.Linear(1, 1, bias=False), torch.ones(1, 1)
    seen = []
    with torch.autocast("cpu", torch.bfloat16), plain_torch():
        for weight in (1.0, 2.0):
            with torch.no_grad():
                layer.weight.fill_(weight)
            with torch.autocast("cpu", torch.bfloat16):
                seen.append(layer(x).item())
    assert seen == [1, 2]


@pytest.mark.parametrize("fails", [False, True])
def test_a_gpu_that_has_not_begun_keeps_the_caller_s_seed(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is seeded before a GPU is first used waits for it; the last one counts."""
    asked: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", asked.append)
    torch.manual_seed(5)
    with pytest.raises(ZeroDivisionError) if fails else nullcontext(), kept_random():
        torch.manual_seed(123)
        assert not fails or 1 / 0
    assert asked == [5, 123, 5]
    assert torch.initial_seed() == 5

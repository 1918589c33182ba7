"""Every name that is promised is there."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import whatwhere

OPTIONAL = {"zarr", "rasterio", "starlette", "uvicorn", "dask", "distributed", "onnx", "onnxruntime", "timm"}
MODULES = sorted(m.name for m in pkgutil.walk_packages(whatwhere.__path__, "whatwhere.") if "__main__" not in m.name)


@pytest.mark.parametrize("name", whatwhere.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(whatwhere, name) is not None


def test_public_names_are_listed_in_order_and_once() -> None:
    assert sorted(set(whatwhere.__all__)) == sorted(whatwhere.__all__)
    assert set(whatwhere.__all__) <= set(dir(whatwhere))


def test_an_unknown_name_tells_which_there_are() -> None:
    with pytest.raises(AttributeError, match=r"no 'Unet'.*Segmenter"):
        _ = whatwhere.Unet


def test_the_room_explain_can_be_called_as_the_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    from whatwhere.explain import Explanation  # as a notebook may have it first

    monkeypatch.setattr("whatwhere.verbs.explain", lambda *given, **options: (given, options))
    assert whatwhere.explain("run", "cells", images=2) == (("run", "cells"), {"images": 2})
    assert whatwhere.explain.Explanation is Explanation


def test_a_name_of_the_package_loads_nothing_but_what_it_names() -> None:
    code = "import sys, whatwhere; assert 'explain' in dir(whatwhere); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_docstring_and_the_names_it_lists(module: str) -> None:
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OPTIONAL:
            pytest.skip(f"{module} needs the extra that holds {error.name}")
        raise
    if not Path(str(loaded.__file__)).read_text("utf-8").strip():
        pytest.skip(f"{module} is not written yet")
    assert (loaded.__doc__ or "").strip(), f"{module} does not say what it does"
    for name in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, name), f"{module}.__all__ lists {name!r}, which is not there"

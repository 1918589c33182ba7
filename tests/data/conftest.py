"""Tiny data folders on disk."""

from pathlib import Path

import pytest
from tiny_folders import Pair, disc, photo, write_folder


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Sixteen ordinary pairs, divided into train and val."""
    names = [f"train/{k:02}" for k in range(12)] + [f"val/{k:02}" for k in range(12, 16)]
    pairs: dict[str, Pair] = {name: (photo(k), disc(12 + k, 20 + 2 * k)) for k, name in enumerate(names)}
    return write_folder(tmp_path / "good", pairs)

"""Write label images that look right when opened. Knows classes and colours; nothing of what painted them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from whatwhere.data.tiffs import resolution
from whatwhere.errors import OutputError
from whatwhere.records import VOID, Classes
from whatwhere.writing import whole_file

__all__ = ["palette", "write_label_image"]

_VOID_COLOR = (128, 128, 128)


def palette(classes: Classes) -> NDArray[np.uint8]:
    """``(256, 3)`` RGB: the classes' colours, mid-grey for VOID, black for what is not used."""
    colors = np.zeros((256, 3), np.uint8)
    colors[: classes.count] = classes.colors
    colors[VOID] = _VOID_COLOR
    return colors


def write_label_image(
    path: str | Path, labels: NDArray[np.uint8], classes: Classes, *, pixel_size: tuple[float, float] | None = None
) -> None:
    """Write class ids as a paletted PNG or, for ``.tif``, a TIFF with a colour map, in the colours of the classes.

    What `read_mask` gives back are the ids again; void pixels are index 255, shown mid-grey.
    The file appears whole or not at all.

    Args:
        path: ends with ``.png``, ``.tif`` or ``.tiff``; missing folders are made.
        labels: ``HxW`` uint8 class ids, 255 for void.
        classes: whose colours to show.
        pixel_size: height and width of a pixel in micrometres, for a TIFF's tags.

    Raises:
        OutputError: the place cannot be written to, or the name ends with something else.
    """
    path = Path(path)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f"labels are {labels.shape} {labels.dtype}; expected HxW uint8")
    suffix = path.suffix.lower()
    if suffix not in {".png", ".tif", ".tiff"}:
        raise OutputError(f"{path} cannot hold labels", "a name ending with .png or .tif", "choose another ending")
    with whole_file(path) as partial:
        if suffix == ".png":
            picture = Image.fromarray(labels)
            picture.putpalette(palette(classes).tobytes())
            picture.save(partial, format="PNG")
        else:
            colormap = palette(classes).T.astype(np.uint16) * 257
            tifffile.imwrite(
                partial, labels, photometric="palette", colormap=colormap, compression="zlib", **resolution(pixel_size)
            )

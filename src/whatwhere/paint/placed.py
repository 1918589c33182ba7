"""Where a picture lies on Earth, as files beside it say: world files, and GDAL's notes (``NAME.aux.xml``).

Knows their names, and what in them is of the place; reads no pixels.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from whatwhere.errors import DataError
from whatwhere.writing import is_there, whole_file

__all__ = ["Place", "files_of_place", "is_placed", "lay", "notes_of", "place_of"]

_OF_PLACE = ("SRS", "GeoTransform", "GCPList")
"""What GDAL notes of an image's place; the rest of its notes is of pixels."""


@dataclass(frozen=True)
class Place:
    """What lies beside an image and says where on Earth it is: the words of a world file and of GDAL's notes."""

    world: bytes = b""
    notes: bytes = b""


def place_of(image: Path) -> Place:
    """What lies beside a picture; ``DataError`` if it can't be read."""
    world = _world_file(image)
    return Place(b"" if world is None else _read(world), _of_place(notes_of(image)))


def is_placed(image: Path) -> bool:
    """Whether a file beside it says where it lies."""
    words = notes_of(image)  # often only of statistics
    return _world_file(image) is not None or b"<GeoTransform>" in words or b"<GCPList" in words


def lay(place: Place, painting: Path) -> None:
    """Puts beside a painting that is about to come what its image had beside it; what an earlier one had there goes."""
    for file, words in zip(files_of_place(painting), (place.world, place.notes)):
        if words:
            with whole_file(file) as partial:
                partial.write_bytes(words)
        else:
            with suppress(OSError):  # what is not there: its name may be too long to look for
                file.unlink()


def notes_of(image: Path) -> bytes:
    """What GDAL has noted beside an image, as its format has no room for it."""
    return _read(_notes_file(image))


def files_of_place(painting: Path) -> tuple[Path, Path]:
    """The world file and the notes of a painting. They are nobody else's: ``.tfw`` might be a ``.tiff``'s."""
    return painting.with_suffix(".pgw" if painting.suffix == ".png" else f"{painting.suffix}w"), _notes_file(painting)


def _notes_file(image: Path) -> Path:
    return image.with_name(f"{image.name}.aux.xml")


def _world_file(image: Path) -> Path | None:
    """``.tfw``, ``.tifw`` or ``.wld`` of a ``.tif``, and so of all kinds."""
    end = image.suffix
    if not end:
        return None
    spelt = [word for world in (f"{end[:2]}{end[-1]}w", f"{end}w", ".wld") for word in (world.lower(), world.upper())]
    return next((file for file in map(image.with_suffix, spelt) if is_there(file) and file.is_file()), None)


def _read(file: Path) -> bytes:
    """Its words; none if it is not there."""
    try:
        return file.read_bytes() if is_there(file) and file.is_file() else b""
    except OSError as error:
        given = f"{file} can't be read ({error.strerror})"
        raise DataError(given, "a file that says where the image beside it lies", "make it readable") from error


def _of_place(notes: bytes) -> bytes:
    try:
        kept = [one for one in ElementTree.fromstring(notes) if one.tag in _OF_PLACE]
    except ElementTree.ParseError:  # nor does GDAL read them
        return b""
    root = ElementTree.Element("PAMDataset")
    root.extend(kept)
    return ElementTree.tostring(root) if kept else b""

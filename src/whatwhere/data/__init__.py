"""Find, check, read, crop and augment images and masks."""

from whatwhere.data.folder import Folder, Sample, find
from whatwhere.data.images import image_size, read_image, read_mask, write_label_image
from whatwhere.data.mapping import encode_mask, infer_classes, read_classes

__all__ = [
    "Folder",
    "Sample",
    "encode_mask",
    "find",
    "image_size",
    "infer_classes",
    "read_classes",
    "read_image",
    "read_mask",
    "write_label_image",
]

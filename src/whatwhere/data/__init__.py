"""Find, check, read, crop and augment images and masks."""

from whatwhere.data.check import check
from whatwhere.data.facts import FileSurvey, Survey
from whatwhere.data.findings import Finding, Findings
from whatwhere.data.folder import Folder, Sample, find
from whatwhere.data.images import image_size, read_image, read_mask
from whatwhere.data.label_images import write_label_image
from whatwhere.data.mapping import encode_mask, infer_classes, read_classes
from whatwhere.data.split import split
from whatwhere.data.survey import survey

__all__ = [
    "FileSurvey",
    "Finding",
    "Findings",
    "Folder",
    "Sample",
    "Survey",
    "check",
    "encode_mask",
    "find",
    "image_size",
    "infer_classes",
    "read_classes",
    "read_image",
    "read_mask",
    "split",
    "survey",
    "write_label_image",
]

"""Networks that torch 2.6 can't export; `field` refuses them there in one line. Between 2.6 and 2.13 nobody looked."""

from __future__ import annotations

import pytest
import torch

from whatwhere.errors import FieldError

__all__ = ["NEWER_EXPORT"]

_VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])

NEWER_EXPORT = pytest.mark.xfail(_VERSION < (2, 13), raises=FieldError, reason="an older torch.export")

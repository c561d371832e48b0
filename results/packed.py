"""One small whole number for each of thousands of test items, as a text short enough to stand in a record."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def packed(values: np.ndarray) -> str:
    """``TYPE:BASE64`` of whole numbers, in the smallest of the little-endian types i1, i2, i4 and i8 that holds them.

    Raises:
        ValueError: for a number that is not whole.
    """
    import numpy as np

    for kind in ("i1", "i2", "i4", "i8"):
        small = values.astype(f"<{kind}")
        if np.array_equal(small, values):
            return f"{kind}:{base64.b64encode(small.tobytes()).decode()}"
    raise ValueError(f"only whole numbers can be packed, not {values.dtype}")


def unpacked(text: str) -> np.ndarray:
    """The numbers, (items,) int64."""
    import numpy as np

    kind, _, content = text.partition(":")
    return np.frombuffer(base64.b64decode(content), f"<{kind}").astype(np.int64)

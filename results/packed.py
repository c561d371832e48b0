"""One small whole number for each of thousands of test items, as a text short enough to stand in a record."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence

KINDS = {"i1": "b", "i2": "h", "i4": "i", "i8": "q"}
"""Name of a type -> its letter in `struct`; all are little-endian."""


def packed(values: Sequence[int]) -> str:
    """``TYPE:BASE64`` of whole numbers, in the smallest type that holds them all.

    Raises:
        ValueError: for a number that is not whole, or too large for 8 bytes.
    """
    for kind, letter in KINDS.items():
        try:
            content = struct.pack(f"<{len(values)}{letter}", *values)
        except struct.error:
            continue
        return f"{kind}:{base64.b64encode(content).decode()}"
    raise ValueError(f"only whole numbers of up to 8 bytes can be packed, not such as {values[0]!r}")


def unpacked(text: str) -> list[int]:
    """The numbers."""
    kind, _, encoded = text.partition(":")
    content = base64.b64decode(encoded)
    return list(struct.unpack(f"<{len(content) // int(kind[1])}{KINDS[kind]}", content))

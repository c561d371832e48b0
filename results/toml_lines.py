"""Finds the line of a key or a value in a TOML file: `tomllib` says what a file holds, and not where."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEADER = re.compile(r"^\s*\[(\[)?\s*([\w.\"' -]+?)\s*\]?\]\s*(#.*)?$")
_KEY = re.compile(r"^\s*([\w-]+|\"[^\"]*\"|'[^']*')\s*(\.[^=]*)?=")
Table = tuple[str, int]
"""Name of a table and its number among those of its name, from 0."""
TOP: Table = ("", 0)


@dataclass(frozen=True)
class Lines:
    """The text of a file with the place of every key; the empty key is the header of a table."""

    text: tuple[str, ...]
    keys: dict[tuple[Table, str], int]

    def key(self, table: Table, key: str) -> int:
        """Line (from 1) of a key, or else of its table's header, or else 1."""
        return self.keys.get((table, key), self.keys.get((table, ""), 1))

    def value(self, table: Table, key: str, value: object) -> int:
        """Line of a value in the list that a key holds; the key's own line where it is not to be seen."""
        start = self.key(table, key)
        end = min((line for line in self.keys.values() if line > start), default=len(self.text) + 1)
        shown = str(value)
        found = re.compile(rf"(?<![\w+.-]){re.escape(shown)}(?![\w+.-])")
        return next((n for n in range(start, end) if found.search(self.text[n - 1])), start)


def scan(content: str) -> Lines:
    """Reads the places of all keys, line by line."""
    keys: dict[tuple[Table, str], int] = {}
    counts: dict[str, int] = {}
    table: Table = TOP
    quoted = False
    text = tuple(content.splitlines())
    for number, line in enumerate(text, 1):
        inside = quoted
        quoted ^= (line.count('"""') + line.count("'''")) % 2 == 1
        if inside:
            continue
        if header := _HEADER.match(line):
            name = header.group(2)
            if header.group(1):
                counts[name] = counts.get(name, 0) + 1
            parent, _, child = name.rpartition(".")
            if parent in counts and not header.group(1):  # [matrix.changes] is the key `changes` of the last matrix
                keys.setdefault(((parent, counts[parent] - 1), child), number)
                table = (name, counts[parent] - 1)
            else:
                table = (name, counts.get(name, 1) - 1)
            keys.setdefault((table, ""), number)
        elif key := _KEY.match(line):
            keys.setdefault((table, key.group(1).strip("\"'")), number)
    return Lines(text, keys)

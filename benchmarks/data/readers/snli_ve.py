"""SNLI-VE (arXiv:1901.06706): hypotheses of SNLI about the photographs of Flickr30k, an object a line.

The first release spells the key of the photograph ``Flikr30kID`` and ends its value in .jpg; the present one writes
``Flickr30K_ID`` and no ending. Hypotheses without a majority label ("-"), and those about photographs of Visual Genome
(``vg_``), are no part of the data set and are not counted as faults. The premise, a caption, is not read.
"""

from __future__ import annotations

from typing import Any

from vlpbench.benchmarks.data.faults import Fault, below, mapping, one_of, words
from vlpbench.benchmarks.data.jsonfiles import read_lines
from vlpbench.benchmarks.data.readers.reading import Reading
from vlpbench.benchmarks.data.rows import Claim, Found

LABELS = {name: name for name in ("entailment", "neutral", "contradiction")}
KEYS = ("Flikr30kID", "Flickr30K_ID")


def read(reading: Reading) -> Found:
    """The split of the file."""
    claims: dict[str, Claim] = {}
    for where, item in read_lines(reading.file("hypotheses"), "hypotheses of SNLI-VE", reading.faults):
        with reading.faults.at(where):
            line = mapping(item)
            pair = words(line.get("pairID"), "pairID")
            if line.get("gold_label") == "-" or pair.startswith("vg_"):
                continue
            if pair in claims:
                raise Fault("repeated", f"repeats the pair {pair}: keep one of the two")
            claims[pair] = Claim(
                pictures=(_picture(line),),
                text=words(line.get("sentence2"), "hypothesis"),
                label=one_of(line.get("gold_label"), LABELS, "label"),
            )
    return {reading.split: list(claims.values())}


def _picture(line: dict[str, Any]) -> str:
    found = next((line[key] for key in KEYS if key in line), None)
    if isinstance(found, int):
        found = str(found)
    name = below(found)
    return name if name.endswith(".jpg") else f"{name}.jpg"

"""Weights that the user brings: ``--checkpoint NAME=FILE``, or the key ``checkpoint`` of a suite.

No torch is imported until some are read.

A cell names its weights by file name and hash of the content, so a record says whose weights it is about, wherever the
file lies. Where it lies is told beside the cell.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlpbench.archs import registry
from vlpbench.benchmarks.fields import SuiteError
from vlpbench.benchmarks.measures import base as measures
from vlpbench.benchmarks.worker import CHECKPOINTS_VARIABLE as VARIABLE

if TYPE_CHECKING:
    from vlpbench.archs.weights import Weights
    from vlpbench.benchmarks.data.base import Geometry
    from vlpbench.benchmarks.suite import Suite
    from vlpbench.results.record import Cell

OPEN_CLIP = "open_clip:"
"""What a name of open_clip begins with: ``open_clip:MODEL/TAG``, or a file in the place of the tag."""
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""How weights of open_clip are called where their name does not say."""
DIGITS = 16
"""Of the hash of the content that a cell's name of its weights ends in."""


@dataclass(frozen=True, kw_only=True)
class Brought:
    """Weights with a place."""

    name: str
    """What cells call them."""
    paths: tuple[str, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the configuration that their name says."""


def resolve(text: str, *, folder: Path, download: bool = False) -> Brought:
    """Finds weights and reads them once, for their hash.

    Args:
        text: a file or folder; two of them joined by ``+``, a ViT and BERT; or a name of open_clip.
        folder: what relative paths begin at.
        download: whether a name of open_clip may be fetched.

    Raises:
        SuiteError: for what is not there, with what to do.
    """
    if text.startswith(OPEN_CLIP):
        return _of_open_clip(text.removeprefix(OPEN_CLIP), folder, download=download)
    paths = [folder / part for part in text.split("+")]
    for path in paths:
        if not path.exists():
            raise SuiteError(f"there are no weights {path}: name a file, or open_clip:MODEL/TAG")
    return _named("+".join(path.name for path in paths), paths)


def assign(suite: Suite, given: Sequence[str], *, folder: Path, download: bool = False) -> Suite:
    """The suite with its cells' weights found and named by content.

    Where weights are given, cells that neither have some nor train are left out.

    Args:
        suite: whose cells may name weights by path, from ``folder`` on.
        given: ``NAME=WEIGHTS`` for the cells of an architecture, in place of what the suite says; paths are from the
            current folder on.
        folder: of the suite's file.
        download: whether names of open_clip may be fetched.

    Raises:
        SuiteError: for a name that is no architecture of the suite, and weights that are not there.
    """
    of_arch = _by_arch(suite, given, download=download)
    found: dict[str, Brought] = {}
    cells: dict[str, Cell] = {}
    for cell in suite.cells:
        brought = of_arch.get(cell.arch.removesuffix(registry.LATE)) if uses(cell) else None
        if brought is None and cell.checkpoint is not None:
            brought = found.get(cell.checkpoint) or resolve(cell.checkpoint, folder=folder, download=download)
            found[cell.checkpoint] = brought
        named = cell.model_copy(update={"checkpoint": brought.name if brought else None})
        cells.setdefault(named.id, named)
    weighed = [cell for cell in cells.values() if not bare(cell)]
    kept = weighed if given or not weighed else list(cells.values())
    if not kept:
        archs = ", ".join(dict.fromkeys(cell.arch for cell in suite.cells))
        raise SuiteError(
            f"suite {suite.name} evaluates weights that you bring, and none are given: add --checkpoint NAME=FILE for "
            f"one or more of {archs}"
        )
    every = {brought.name: brought for brought in (*of_arch.values(), *found.values())}
    return replace(suite, cells=tuple(kept), weights=tuple(every.values()))


def uses(cell: Cell) -> bool:
    """Whether weights matter to a cell: what a step costs does not depend on their values."""
    return measures.spec(cell.measure).kind == "accuracy"


def bare(cell: Cell) -> bool:
    """Whether a cell has nothing to measure the accuracy of: neither weights nor a training, on a task or before it."""
    return uses(cell) and cell.checkpoint is None and cell.budget is None and cell.finetune is None


def places(brought: Sequence[Brought]) -> str:
    """For the process of a cell."""
    return json.dumps({one.name: asdict(one) for one in brought})


def opened(cell: Cell) -> Weights | None:
    """The weights of a cell, read in its own process; None where it has none, or they do not matter to it.

    Raises:
        CheckpointError: for weights that cannot be used, or whose place is not told.
    """
    if cell.checkpoint is None or not uses(cell):
        return None
    return _read(cell.arch, cell.checkpoint, os.environ.get(VARIABLE, ""))


def changes(cell: Cell) -> dict[str, Any]:
    """Configuration fields for which a cell's weights speak: their image size, vocabulary, positions."""
    weights = opened(cell)
    return {} if weights is None else weights.changes(cell.size) | dict(_brought(cell.checkpoint or "").changes)


def reads(cell: Cell) -> dict[str, Any]:
    """How a source is to be read for a cell: `open_source`'s ``inputs``, ``image``, ``text_len``, ``options``."""
    inputs, fixed = registry.get(cell.arch).inputs, changes(cell)
    image = cell.image or fixed.get("image_size")
    text_len = cell.text_len
    if text_len is None and fixed:
        # A table of positions has room for so many tokens, and shorter texts are read all the same.
        rooms = (fixed.get(name, inputs.text.length) for name in ("text_len", "positions"))
        text_len = min(inputs.text.length, *rooms)
    return {"inputs": inputs, "image": image, "text_len": text_len, "options": cell.data_options}


def configuration(cell: Cell, geometry: Geometry | None) -> dict[str, Any]:
    """Fields of the architecture's configuration to replace: as the data has it, then the cell, then its weights.

    Raises:
        CheckpointError: for a tokenizer with more tokens than the weights have rows.
    """
    wanted: dict[str, Any] = dict(cell.changes)
    if geometry is not None:
        wanted |= {
            "image_size": geometry.image,
            "text_len": geometry.text_len,
            "vocab_size": geometry.vocab_size,
        }
        if geometry.regions is not None:
            crop = registry.CROP
            wanted |= {"regions": geometry.regions, "features": 3 * crop * crop, "crop": crop}
    if cell.image is not None:
        wanted["image_size"] = cell.image
    if cell.text_len is not None:
        wanted["text_len"] = cell.text_len
    return _with_weights(cell, wanted, changes(cell))


def _with_weights(cell: Cell, wanted: dict[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    from vlpbench.archs.pretrained import CheckpointError

    rows, tokens = fixed.get("vocab_size"), wanted.get("vocab_size", 0)
    if rows is not None and tokens > rows:
        raise CheckpointError(
            f"{cell.checkpoint} has a word table of {rows} rows, and the data's tokenizer {tokens} tokens: give the "
            "vocabulary that the weights were trained with"
        )
    kept = {name: value for name, value in fixed.items() if name != "image_size" or "image_size" not in wanted}
    return wanted | kept


def _by_arch(suite: Suite, given: Sequence[str], *, download: bool) -> dict[str, Brought]:
    there = dict.fromkeys(cell.arch.removesuffix(registry.LATE) for cell in suite.cells)
    found: dict[str, Brought] = {}
    for text in given:
        arch, equals, weights = text.partition("=")
        if not equals or not weights:
            raise SuiteError(f"--checkpoint {text!r} is not NAME=FILE; docs/checkpoints.md has examples")
        if arch not in there:
            raise SuiteError(f"--checkpoint: {registry.nearest('architecture of the suite', arch, list(there))}")
        if arch in found:
            raise SuiteError(f"--checkpoint gives {arch} two weights; name one, or run twice with two --out")
        found[arch] = resolve(weights, folder=Path(), download=download)
    return found


def _named(label: str, paths: Sequence[Path], changes: Mapping[str, Any] | None = None) -> Brought:
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]
        for file in files:
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    name = f"{label}@{digest.hexdigest()[:DIGITS]}"
    return Brought(name=name, paths=tuple(str(path.absolute()) for path in paths), changes=changes or {})


def _of_open_clip(text: str, folder: Path, *, download: bool) -> Brought:
    import open_clip

    model, slash, tag = text.partition("/")
    config = open_clip.get_model_config(model)
    if config is None or not slash or not tag:
        known = open_clip.list_models()
        raise SuiteError(f"{registry.nearest('model of open_clip', model, known)}; write open_clip:MODEL/TAG or a file")
    quick = {"quick_gelu": bool(config.get("quick_gelu"))}
    if (folder / tag).exists():
        return _named(f"{OPEN_CLIP}{model}/{Path(tag).name}", [folder / tag], quick)
    published = open_clip.get_pretrained_cfg(model, tag)
    if not published:
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise SuiteError(f"{registry.nearest(f'weights of {model}', tag, tags)}; or name a file")
    path = _fetched(published, f"{OPEN_CLIP}{text}", download=download)
    quick = {"quick_gelu": quick["quick_gelu"] or bool(published.get("quick_gelu"))}
    return _named(f"{OPEN_CLIP}{model}/{tag}", [path], quick)


def _fetched(published: Mapping[str, Any], what: str, *, download: bool) -> Path:
    """The file of published weights: where an earlier download left it, or, if that is asked for, from the network."""
    if download:
        from open_clip.pretrained import download_pretrained

        return Path(download_pretrained(dict(published)))
    from huggingface_hub import try_to_load_from_cache

    repository, name = os.path.split(str(published.get("hf_hub") or ""))
    for file in (name,) if name else HUB_FILES:
        found = try_to_load_from_cache(repository, file) if repository else None
        if isinstance(found, str):
            return Path(found)
    raise SuiteError(f"{what} is not on this machine, and nothing is fetched unasked: add --download")


def _brought(name: str, told: str | None = None) -> Brought:
    from vlpbench.archs.pretrained import CheckpointError

    known = json.loads((os.environ.get(VARIABLE, "") if told is None else told) or "{}")
    if name not in known:
        raise CheckpointError(
            f"nobody says where the weights {name} lie: run the cell by `vlpbench run` with --checkpoint"
        )
    found = known[name]
    return Brought(name=found["name"], paths=tuple(found["paths"]), changes=found["changes"])


@lru_cache(maxsize=1)
def _read(arch: str, name: str, told: str) -> Weights:
    from vlpbench.archs.weights import open_weights

    return open_weights(arch, [Path(path) for path in _brought(name, told).paths], name)

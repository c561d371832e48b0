"""Checkpoints in the layouts of the official implementations: strict loading, saving, and what fine-tuning starts from.

A layout is data: which of our prefixes an official prefix stands for, and which of our keys it has none for.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an official checkpoint names the tensors of one of our modules."""

    name: str
    rules: Mapping[str, str]
    """Our prefix -> official prefix, on whole dotted names; the longest match counts."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Our prefix -> why the official layout has no such tensor. These keep their value when a checkpoint is loaded."""

    def official(self, key: str) -> str | None:
        """The official name of our key, None if the layout has none for it.

        Raises:
            KeyError: for a key that no rule covers.
        """
        prefixes = [p for p in (*self.rules, *self.absent) if key == p or key.startswith(p + ".")]
        if not prefixes:
            raise KeyError(f"layout {self.name!r} has no rule for {key!r}")
        prefix = max(prefixes, key=len)
        return None if prefix in self.absent else self.rules[prefix] + key[len(prefix) :]


class CheckpointError(ValueError):
    """A checkpoint that does not fit; the message lists the keys."""


def load(module: nn.Module, state: Mapping[str, Tensor], layout: Layout) -> None:
    """Loads an official state dict: every tensor of it, into every tensor of ours that the layout knows.

    Raises:
        CheckpointError: for missing and unexpected keys, and for tied tensors that differ in the checkpoint.
        RuntimeError: for a shape that differs, from torch.
    """
    own = module.state_dict()
    names = {key: official for key in own if (official := layout.official(key)) is not None}
    missing, unexpected = sorted(set(names.values()) - set(state)), sorted(set(state) - set(names.values()))
    if missing or unexpected:
        raise CheckpointError(
            f"the checkpoint does not fit layout {layout.name!r}: missing {missing}, unexpected {unexpected}"
        )
    check_ties(own, names, state)
    kept = {key: own[key] for key in own if key not in names}
    module.load_state_dict({key: state[official] for key, official in names.items()} | kept)


def save(module: nn.Module, layout: Layout) -> dict[str, Tensor]:
    """The module's state dict in the official layout; tied tensors appear under each of their names."""
    own = module.state_dict()
    return {official: tensor for key, tensor in own.items() if (official := layout.official(key)) is not None}


def check_ties(own: Mapping[str, Tensor], names: Mapping[str, str], state: Mapping[str, Tensor]) -> None:
    """Raises `CheckpointError` where keys of ours share a tensor, and their official names hold different ones."""
    groups: dict[int, list[str]] = defaultdict(list)
    for key, official in names.items():
        if own[key].device.type != "meta":
            groups[own[key].data_ptr()].append(official)
    for first, *rest in groups.values():
        for other in rest:
            if state[first].shape == state[other].shape and not torch.equal(state[first], state[other]):
                raise CheckpointError(
                    f"{first!r} and {other!r} are one tensor in the model and differ in the checkpoint"
                )


def _first_m(official: str) -> str:
    """ALBEF names a momentum copy by ``_m`` on the first part of the name."""
    first, dot, rest = official.partition(".")
    return f"{first}_m{dot}{rest}"


def _twin(rules: Mapping[str, str]) -> dict[str, str]:
    return {f"momentum.twin.{own}": _first_m(official) for own, official in rules.items()}


_TOWERS = {"model.visual_encoder": "visual_encoder", "model.text_encoder": "text_encoder"}
_PROJECTIONS = {"model.vision_proj": "vision_proj", "model.text_proj": "text_proj"}
_PRETRAIN = _TOWERS | _PROJECTIONS | {"model.text_encoder": "text_encoder.bert"}
_CONTRAST = {
    "objectives.itc.temperature": "temp",
    "objectives.itm.head": "itm_head",
    "momentum.queue.image": "image_queue",
    "momentum.queue.text": "text_queue",
    "momentum.queue.pointer": "queue_ptr",
}

ALBEF_PRETRAIN = Layout(
    name="albef_pretrain",
    rules=_PRETRAIN
    | {"objectives.mlm.head": "text_encoder.cls.predictions"}
    | _twin(_PRETRAIN | {"heads.mlm": "text_encoder.cls.predictions"})
    | _CONTRAST,
    absent={"momentum.queue.ids": "only the official retrieval fine-tuning keeps sample ids in its queue"},
)
"""`Learner` of ``itc``, ``itm``, ``mlm`` with momentum ``distill``."""
ALBEF_RETRIEVAL = Layout(
    name="albef_retrieval",
    rules=_TOWERS | _PROJECTIONS | _twin(_TOWERS | _PROJECTIONS) | _CONTRAST | {"momentum.queue.ids": "idx_queue"},
)
"""`Learner` of ``itc`` and ``itm`` with momentum ``queue`` or ``distill``."""


def _task(own: str, official: str, *more: tuple[str, str], name: str) -> Layout:
    """A `vlpbench.archs.albef_tasks.TaskLearner`, whose network has parts beside its ALBEF."""
    rules = _TOWERS | {own: official} | dict(more)
    student = {f"network.{key}": value for key, value in rules.items()}
    unused = "the task embeds nothing, so the official model has no projections"
    absent = dict.fromkeys((f"{at}.{key}" for at in ("network", "momentum.twin") for key in _PROJECTIONS), unused)
    return Layout(name=name, rules=student | _twin(rules), absent=absent)


ALBEF_VE = _task("head", "cls_head", name="albef_ve")
ALBEF_NLVR = _task("head", "cls_head", name="albef_nlvr")
ALBEF_VQA = _task(
    "decoder.bert",
    "text_decoder.bert",
    ("decoder.cls", "text_decoder.cls.predictions"),
    name="albef_vqa",
)
ALBEF_PRETRAIN_NLVR = Layout(
    name="albef_pretrain_nlvr",
    rules=_TOWERS | _PROJECTIONS | {"head": "ta_head", "temperature": "temp"},
)
"""`vlpbench.archs.albef_tasks.TextAssignment`, which has no teacher."""


def resize_positions(positions: Tensor, grid: tuple[int, int], *, extra: int = 1, antialias: bool = False) -> Tensor:
    """A ViT's position embedding (1, extra + N, D) of a square grid, resized to another (1, extra + rows * columns, D).

    Bicubic without aligned corners, smoothed where ``antialias`` asks for it; the first ``extra`` positions (class
    token) stay. A grid of the same size gives the tensor itself.

    Raises:
        ValueError: if the N positions are no square.
    """
    kept, places = positions[:, :extra], positions[:, extra:]
    side = round(places.shape[1] ** 0.5)
    if side * side != places.shape[1]:
        raise ValueError(f"{places.shape[1]} positions after {extra} extra are no square grid")
    if grid == (side, side):
        return positions
    image = places.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = F.interpolate(image, size=grid, mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([kept, resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def albef_finetuning_keys(keys: Iterable[str], task: str, *, text_layers: int) -> dict[str, str]:
    """Where ALBEF's fine-tuning programs load each tensor from: task key -> key of the pre-training checkpoint.

    Args:
        keys: of a pre-training checkpoint.
        task: ``vqa``, ``retrieval``, ``ve`` or ``pretrain_nlvr``. Keys that the task's model lacks are part of the
            result, as they are part of what the official code offers to its model.
        text_layers: layers below fusion, 6 at paper size.

    Raises:
        ValueError: for another task.
    """
    if task not in ("vqa", "retrieval", "ve", "pretrain_nlvr"):
        raise ValueError(f"unknown task {task!r}; use vqa, retrieval, ve or pretrain_nlvr")
    found: dict[str, str] = {}
    for key in keys:
        plain = key.replace("bert.", "")
        layer = int(plain.partition(".layer.")[2].partition(".")[0]) if ".layer." in plain else None
        names = [plain]
        if layer is not None and layer >= text_layers and task == "pretrain_nlvr":
            # Two images: every fusion layer serves twice, the even copy for the first image.
            pair = text_layers + 2 * (layer - text_layers)
            names = [plain.replace(f".layer.{layer}.", f".layer.{copy}.") for copy in (pair, pair + 1)]
        if task == "vqa" and key.startswith("text_encoder"):
            names = [] if ".cls." in key else names
            if layer is None or layer >= text_layers:
                # The answer decoder starts from the fusion layers, and keeps the prefix that it is a language model.
                decoder = key.replace("text_encoder", "text_decoder", 1)
                names.append(decoder if layer is None else decoder.replace(f".{layer}.", f".{layer - text_layers}.", 1))
        found |= dict.fromkeys(names, key)
    return found

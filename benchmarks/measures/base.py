"""A measure turns a built model and a cell into samples. Listing the measures imports neither them nor torch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from vlpbench.archs.registry import UnknownName, nearest
from vlpbench.archs.types import NOTHING, Can

if TYPE_CHECKING:
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell, Series


@dataclass(kw_only=True)
class Samples:
    """What a measure brings back: raw values by quantity (a name in `UNITS`), and what explains them."""

    values: dict[str, list[float]] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)
    """JSON-serialisable."""
    flags: list[str] = field(default_factory=list)

    def series(self) -> dict[str, Series]:
        """The values as a record holds them, with their units.

        Raises:
            KeyError: for a quantity that has no unit.
        """
        from vlpbench.results.record import UNITS, Series

        return {name: Series(unit=UNITS[name].unit, values=tuple(values)) for name, values in self.values.items()}


class Measure(Protocol):
    """One way of looking at a subject."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Raises `vlpbench.archs.types.Unsupported` where the subject cannot be measured this way."""
        ...


@dataclass(frozen=True, kw_only=True)
class MeasureSpec:
    """One line of the table below."""

    name: str
    target: str
    """``module:class``; the class is called without arguments."""
    kind: Literal["count", "cost", "memory", "accuracy"]
    """``count`` runs on the meta device; ``cost`` is timed, alone and interleaved over rounds; ``memory`` is alone in
    a process of its own; ``accuracy`` trains, side by side, one thread each."""
    quantities: tuple[str, ...]
    sometimes: tuple[str, ...] = ()
    """Quantities of cells on a GPU, with momentum, or of some architectures, alone."""
    needs: Can = NOTHING
    trains: bool = False
    """Whether the cell's objectives and momentum matter to it."""
    objective: str = ""
    """The objective without which there is nothing to look at."""
    queue: bool = False
    """Whether it looks at a momentum queue."""
    answers: bool = False
    """Whether the architecture must write answers: by itself, or by a decoder for them (`ArchSpec.answerer`)."""
    bare: bool = False
    """Whether it is given a subject on the meta device, and builds what it runs in processes of its own."""


def _m(
    name: str,
    cls: str,
    kind: Literal["count", "cost", "memory", "accuracy"],
    quantities: str,
    *,
    needs: Can = NOTHING,
    trains: bool = False,
    objective: str = "",
    queue: bool = False,
    answers: bool = False,
    bare: bool = False,
    on_gpu: str = "",
    with_teacher: str = "",
) -> MeasureSpec:
    target = f"vlpbench.benchmarks.measures.{name}:{cls}"
    return MeasureSpec(
        name=name,
        target=target,
        kind=kind,
        quantities=tuple(quantities.split()),
        sometimes=(*on_gpu.split(), *with_teacher.split()),
        needs=needs,
        trains=trains,
        objective=objective,
        queue=queue,
        answers=answers,
        bare=bare,
    )


MEASURES: dict[str, MeasureSpec] = {
    spec.name: spec
    for spec in (
        _m("params", "Params", "count", "params_stored params_trainable params_touched"),
        _m("flops", "Flops", "count", "flops_forward flops_forward_backward", trains=True),
        _m(
            "structure",
            "Structure",
            "count",
            "image_tokens text_tokens width_image width_text width_fusion layers_image layers_text layers_fusion "
            "layers_cross layers_experts params_shared params_decoder can_decode forwards_image forwards_text "
            "forwards_fusion forwards_decoder gradients_trained",
            with_teacher="forwards_momentum_image forwards_momentum_text forwards_momentum_fusion "
            "forwards_momentum_decoder gradients_momentum gradients_queue momentum_share deit_missing deit_unexpected",
            trains=True,
        ),
        _m("latency", "Latency", "cost", "latency first_call", on_gpu="device_time"),
        _m("throughput", "Throughput", "cost", "throughput"),
        _m(
            "detector",
            "DetectorCost",
            "cost",
            "flops_detector flops_with_detector params_detector params_with_detector detector_latency "
            "latency_with_detector",
        ),
        _m(
            "train_step",
            "TrainStep",
            "cost",
            "step step_forward step_backward step_optimizer step_momentum",
            with_teacher="step_teacher step_ema step_queue",
            trains=True,
        ),
        _m(
            "train_throughput",
            "TrainThroughput",
            "cost",
            "train_throughput train_throughput_model loader_wait",
            trains=True,
        ),
        _m("energy", "Energy", "cost", "energy_inference energy_training", trains=True),
        _m(
            "retrieval_cost",
            "RetrievalCost",
            "cost",
            "search_exponent search_flickr search_coco search_million",
            trains=True,
        ),
        _m("memory", "Memory", "memory", "memory_inference memory_training", trains=True),
        _m("max_batch", "MaxBatch", "memory", "max_batch_inference max_batch_training", trains=True, bare=True),
        _m("retrieval", "Retrieval", "accuracy", "tr_r1 tr_r5 tr_r10 ir_r1 ir_r5 ir_r10 recall_mean", trains=True),
        _m("vqa", "VQA", "accuracy", "vqa_accuracy vqa_binding", needs=Can.FUSE, trains=True),
        _m(
            "vqa_decoder",
            "DecoderVQA",
            "accuracy",
            "vqa_rank_accuracy vqa_rank_binding vqa_generate_accuracy vqa_generate_binding",
            answers=True,
            trains=True,
        ),
        _m(
            "captioning",
            "Captioning",
            "accuracy",
            "caption_cider caption_bleu4 caption_right caption_cider_greedy caption_bleu4_greedy caption_right_greedy",
            needs=Can.DECODE,
            trains=True,
        ),
        _m("reasoning", "VisualReasoning", "accuracy", "reasoning_accuracy", needs=Can.FUSE, trains=True),
        _m("entailment", "VisualEntailment", "accuracy", "entailment_accuracy", needs=Can.FUSE, trains=True),
        _m(
            "grounding",
            "Grounding",
            "accuracy",
            "mlm_right mlm_shuffled",
            needs=Can.FUSE | Can.MASK,
            trains=True,
            objective="mlm",
        ),
        _m("drift", "QueueDrift", "accuracy", "queue_drift queue_drift_oldest", trains=True, queue=True),
        _m(
            "learning",
            "Learning",
            "accuracy",
            "learning_recall learning_binding steps_to_recall cpu_seconds_to_recall steps_to_binding",
            trains=True,
        ),
    )
}
"""Adding a measure is one file, one line here, one line for each quantity in `UNITS`, and one hand-computed test."""


def spec(name: str) -> MeasureSpec:
    """Raises `UnknownName` with the nearest measure."""
    if name not in MEASURES:
        raise UnknownName(nearest("measure", name, list(MEASURES)))
    return MEASURES[name]


def load(name: str) -> Measure:
    """Imports and builds the measure."""
    module, _, attribute = spec(name).target.partition(":")
    return getattr(importlib.import_module(module), attribute)()

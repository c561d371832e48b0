"""The words of a result: `Cell` (what was asked), `Record` (what came of it), `Env` (where), and one table of units.

Stored as JSON, one record a line. Times are seconds, sizes bytes, work FLOPs (two for a multiply-add): SI throughout.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1
"""Version of the stored form. A reader refuses any other, and says which command converts it."""


class Strict(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Status(StrEnum):
    """How a cell ended. Every cell ends as a record."""

    OK = "ok"
    OOM = "oom"
    TIMEOUT = "timeout"
    ERROR = "error"
    UNSUPPORTED = "unsupported"


Option = str | int | float | bool
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class Cell(Strict):
    """One line of a matrix: everything that determines a measurement apart from code, data and machine.

    Fields left out take the meaning in their docstring. The identity is the hash of the fields that differ from their
    default, so a field added later with a default leaves old identities alone.
    """

    arch: str
    size: str = "base"
    measure: str
    """Name of a measure, see results/README.md."""
    objectives: tuple[str, ...] = ()
    """Training objectives; empty for a measure that does not train."""
    weights: tuple[float, ...] = ()
    """Loss weights in the order of ``objectives``; empty means 1 each."""
    momentum: Literal["off", "queue", "distill"] = "off"
    distilled: tuple[str, ...] = ()
    """Objectives whose targets ``distill`` softens; empty means all that can be."""
    negatives: Literal["hard", "uniform", "replace"] = "hard"
    """How ITM draws its negatives; ``hard`` falls back to ``uniform`` where the model cannot embed; ``replace`` swaps
    the image of every second pair and adds none."""
    positives: Literal["image", "pair"] = "image"
    """What belongs together: all pairs that show the same image, or each pair alone, as in ALBEF's released
    pre-training."""
    whole_words: bool = False
    """Whether masked language modelling chooses words and not tokens."""
    queue_size: Positive | None = None
    """Negatives held by the momentum queue; None is the paper's for the size (65,536 at base)."""
    momentum_rate: Probability | None = None
    alpha: Probability | None = None
    """Weight of soft targets after the ramp; None is the paper's 0.4."""
    label_smoothing: Probability = 0.0
    """Of language modelling."""
    code: Literal["clean", "official"] = "clean"
    """``official`` trains and scores as the released code does where ours differs on purpose, see
    ``vlpbench archs NAME --explain``."""
    scorer: Literal["embed", "match", "rerank"] | None = None
    """How a retrieval measure scores pairs."""
    k: Positive | None = None
    """Candidates that ``rerank`` passes on to fusion."""
    batch: Positive = 1
    image: tuple[int, int] | None = None
    """Height, width in pixels; None is the architecture's own for the size."""
    text_len: Positive | None = None
    dtype: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    device: str = "cpu"
    threads: Positive | None = None
    """Intra-operation threads of torch on a CPU; None leaves torch's choice."""
    compile: bool = False
    attention: Literal["sdpa", "eager"] = "sdpa"
    channels_last: bool = False
    """Convolutions and images in NHWC order of memory."""
    memory_limit: Annotated[str, Field(pattern=r"^\d+(\.\d+)?(MiB|GiB)$")] | None = None
    """What a search for the largest batch may fill, such as 8GiB; None is the GPU's memory, and an error on a CPU."""
    data: str = "random"
    """Data source: ``random`` inputs, or the name of a data set."""
    data_options: tuple[tuple[str, Option], ...] = ()
    """How a data set's files are read, sorted by name: ``faulty``, ``captions``, ``clean``, ``least``."""
    noise: Probability = 0.0
    """Share of training captions that are corrupted."""
    captions: Literal["given", "capfilt"] = "given"
    """Training captions: those of the data, or those and written ones, of which a filter keeps some (BLIP, 4.3)."""
    vision_init: Literal["random", "labelled"] = "random"
    """How the image side begins its pre-training: ``labelled`` takes it from a classifier of what the training pictures
    show, trained before without any text."""
    vision_steps: Positive | None = None
    """Steps of that classifier; None is half of ``budget``."""
    budget: Positive | None = None
    """Pre-training steps; None for measures that do not train."""
    finetune: Positive | None = None
    """Fine-tuning steps on the task, after pre-training."""
    finetune_momentum: Literal["off", "distill"] = "off"
    """``distill`` softens the targets of fine-tuning too, by a momentum copy, with the same rate and ``alpha``."""
    augment: Literal["off", "randaugment"] = "off"
    """Changes of the pictures that a task is fine-tuned on."""
    boxes: Literal["known", "detected"] = "known"
    """Whose regions an architecture that reads regions is given: those that the data knows, or a detector's."""
    finetune_lr: Annotated[float, Field(gt=0)] | None = None
    finetune_batch: Positive | None = None
    """Rate and batch of fine-tuning; None is the size's."""
    finetune_warmup: Probability | None = None
    """Share of fine-tuning in which the rate rises; None is the size's own steps, an eighth at the most."""
    finetune_decay: Literal["cosine", "linear"] = "cosine"
    """How the rate of fine-tuning falls after that."""
    checkpoint: str | None = None
    """Weights to begin with, as file name, ``@`` and hash of the content; None are random ones. With a budget they are
    trained further, without one they are taken as they are."""
    protocol: Literal["zero_shot", "zero_shot_coco_tuned", "finetuned"] | None = None
    """What ``checkpoint`` was fine-tuned for: nothing, retrieval on COCO for a look at another data set, or retrieval
    on the data set itself. It changes no number, it says which published ones are comparable."""
    lr: Annotated[float, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    changes: tuple[tuple[str, Option], ...] = ()
    """Fields of the architecture's configuration that were replaced, sorted by name."""

    @cached_property
    def id(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON of all fields that are not at their default."""
        canonical = json.dumps(
            self.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":")
        )
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def variant(self) -> str:
        """What a table calls the row: architecture and, where there is one, the momentum state."""
        return self.arch if self.momentum == "off" else f"{self.arch} ({self.momentum})"


class Env(Strict):
    """Where a record was measured. Latencies are comparable only between records whose ``id`` is equal."""

    cpu: str
    cores: int
    memory: int
    """Bytes of main memory."""
    gpu: str | None = None
    gpu_memory: int | None = None
    driver: str | None = None
    cuda: str | None = None
    os: str
    python: str
    versions: dict[str, str]
    """Package -> version, for every package that can change a number."""
    threads: int
    cpu_flags: tuple[str, ...] = ()
    """Vector extensions that change what kernels run."""
    commit: str | None = None
    dirty: bool | None = None

    @cached_property
    def id(self) -> str:
        """Hash of hardware and versions, without threads and git state."""
        kept = self.model_dump(mode="json", exclude={"threads", "commit", "dirty"})
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


class Series(Strict):
    """Raw samples of one quantity, in the order they were taken. Medians and intervals are derived by reports."""

    unit: str
    values: tuple[float, ...]


class Record(Strict):
    """What came of one cell. Append-only: a cell measured again adds a record and the later one counts."""

    schema_version: Literal[1] = SCHEMA
    id: str
    """16 hex digits, unique: the hash of cell, environment and start."""
    cell: Cell
    status: Status
    reason: str = ""
    """Why the status is not ok: one sentence, then the tail of the traceback where there is one."""
    samples: dict[str, Series] = {}
    """Name of the quantity -> raw samples, e.g. ``latency``, ``tr_r1``."""
    detail: dict[str, Any] = {}
    """What explains the samples: components, operators not counted, warm-up count, per-type accuracies."""
    flags: tuple[str, ...] = ()
    """Quality warnings; a flagged number is shown as flagged."""
    env: Env
    code: str
    """Hash of the code that determined the number."""
    data: str | None = None
    """Hash of the data it was measured on; None for random inputs."""
    suite: str
    started: str
    """UTC, ISO 8601."""
    seconds: float
    """Wall time the cell took, set-up included."""


class Quantity(Strict):
    """One row of the table of units."""

    unit: str
    """As stored."""
    better: Literal["lower", "higher", "neither"]
    title: str
    """What a report calls it."""


def _q(unit: str, better: Literal["lower", "higher", "neither"], title: str) -> Quantity:
    return Quantity(unit=unit, better=better, title=title)


UNITS: dict[str, Quantity] = {
    "params_stored": _q("1", "lower", "Parameters stored"),
    "params_trainable": _q("1", "lower", "Parameters trainable"),
    "params_touched": _q("1", "lower", "Parameters touched by a forward"),
    "flops_forward": _q("FLOP", "lower", "FLOPs forward, per pair"),
    "flops_forward_backward": _q("FLOP", "lower", "FLOPs forward + backward, per pair"),
    "image_tokens": _q("1", "neither", "Image tokens"),
    "text_tokens": _q("1", "neither", "Text tokens"),
    "width_image": _q("1", "neither", "Width, image"),
    "width_text": _q("1", "neither", "Width, text"),
    "width_fusion": _q("1", "neither", "Width, fusion"),
    "layers_image": _q("1", "neither", "Layers, image"),
    "layers_text": _q("1", "neither", "Layers, text"),
    "layers_fusion": _q("1", "neither", "Layers, fusion"),
    "layers_cross": _q("1", "neither", "Layers of text that attend to the image"),
    "layers_experts": _q("1", "neither", "Layers with an expert for each modality"),
    "params_shared": _q("1", "neither", "Parameters that several towers read"),
    "params_decoder": _q("1", "neither", "Parameters of layers that the decoder alone runs"),
    "can_decode": _q("1", "neither", "Writes text"),
    "deit_missing": _q("1", "neither", "Keys that DeiT-B/16 lacks"),
    "deit_unexpected": _q("1", "neither", "Keys that DeiT-B/16 has too many"),
    "forwards_image": _q("1", "neither", "Forward passes in a training step, image"),
    "forwards_text": _q("1", "neither", "Forward passes in a training step, text"),
    "forwards_fusion": _q("1", "neither", "Forward passes in a training step, fusion"),
    "forwards_decoder": _q("1", "neither", "Forward passes in a training step, decoder"),
    "forwards_momentum_image": _q("1", "neither", "Forward passes of the teacher, image"),
    "forwards_momentum_text": _q("1", "neither", "Forward passes of the teacher, text"),
    "forwards_momentum_fusion": _q("1", "neither", "Forward passes of the teacher, fusion"),
    "forwards_momentum_decoder": _q("1", "neither", "Forward passes of the teacher, decoder"),
    "momentum_share": _q("%", "lower", "Share of the teacher in a step's forward FLOPs"),
    "gradients_trained": _q("1", "neither", "Tensors with a gradient, of what is trained"),
    "gradients_momentum": _q("1", "neither", "Tensors with a gradient, of the teacher"),
    "gradients_queue": _q("1", "neither", "Tensors with a gradient, of the queue"),
    "params_detector": _q("1", "lower", "Parameters of the detector"),
    "params_with_detector": _q("1", "lower", "Parameters stored, with the detector"),
    "flops_detector": _q("FLOP", "lower", "FLOPs of the detector, per image"),
    "flops_with_detector": _q("FLOP", "lower", "FLOPs forward, per pair, with the detector"),
    "detector_latency": _q("s", "lower", "Latency of the detector"),
    "latency_with_detector": _q("s", "lower", "Latency, with the detector"),
    "latency": _q("s", "lower", "Latency"),
    "first_call": _q("s", "lower", "First call"),
    "device_time": _q("s", "lower", "Device time"),
    "throughput": _q("1/s", "higher", "Throughput"),
    "step": _q("s", "lower", "Training step"),
    "step_forward": _q("s", "lower", "Training step: forward"),
    "step_backward": _q("s", "lower", "Training step: backward"),
    "step_optimizer": _q("s", "lower", "Training step: optimiser"),
    "step_momentum": _q("s", "lower", "Training step: momentum update"),
    "step_teacher": _q("s", "lower", "Training step: teacher's forward"),
    "step_ema": _q("s", "lower", "Training step: teacher's move"),
    "step_queue": _q("s", "lower", "Training step: queue"),
    "train_throughput": _q("1/s", "higher", "Training throughput, with the loader"),
    "train_throughput_model": _q("1/s", "higher", "Training throughput, model alone"),
    "loader_wait": _q("s", "lower", "Wait for the loader, per step"),
    "memory_inference": _q("B", "lower", "Peak memory, inference"),
    "memory_training": _q("B", "lower", "Peak memory, training step"),
    "max_batch_inference": _q("pairs", "higher", "Largest batch, inference"),
    "max_batch_training": _q("pairs", "higher", "Largest batch, training step"),
    "energy_inference": _q("J", "lower", "Energy of an inference, per pair"),
    "energy_training": _q("J", "lower", "Energy of a training step, per pair"),
    "peak_flops": _q("FLOP/s", "neither", "Fastest matrix product"),
    "search_exponent": _q("1", "lower", "Exponent of search time"),
    "search_flickr": _q("s", "lower", "Search of 1,000 x 5,000, extrapolated"),
    "search_coco": _q("s", "lower", "Search of 5,000 x 25,010, extrapolated"),
    "search_million": _q("s", "lower", "Search of a million x a million, extrapolated"),
    "tr_r1": _q("%", "higher", "TR R@1"),
    "tr_r5": _q("%", "higher", "TR R@5"),
    "tr_r10": _q("%", "higher", "TR R@10"),
    "ir_r1": _q("%", "higher", "IR R@1"),
    "ir_r5": _q("%", "higher", "IR R@5"),
    "ir_r10": _q("%", "higher", "IR R@10"),
    "recall_mean": _q("%", "higher", "Mean recall"),
    "vqa_accuracy": _q("%", "higher", "VQA accuracy"),
    "vqa_binding": _q("%", "higher", "VQA accuracy, binding questions"),
    "vqa_rank_accuracy": _q("%", "higher", "VQA accuracy, answers ranked"),
    "vqa_rank_binding": _q("%", "higher", "VQA accuracy, answers ranked, binding questions"),
    "vqa_generate_accuracy": _q("%", "higher", "VQA accuracy, answers generated"),
    "vqa_generate_binding": _q("%", "higher", "VQA accuracy, answers generated, binding questions"),
    "caption_cider": _q("1", "higher", "CIDEr"),
    "caption_bleu4": _q("%", "higher", "BLEU-4"),
    "caption_right": _q("%", "higher", "Captions that are right"),
    "caption_cider_greedy": _q("1", "higher", "CIDEr, greedy"),
    "caption_bleu4_greedy": _q("%", "higher", "BLEU-4, greedy"),
    "caption_right_greedy": _q("%", "higher", "Captions that are right, greedy"),
    "reasoning_accuracy": _q("%", "higher", "Visual reasoning accuracy"),
    "entailment_accuracy": _q("%", "higher", "Visual entailment accuracy"),
    "mlm_right": _q("%", "higher", "Masked words, with the right image"),
    "mlm_shuffled": _q("%", "neither", "Masked words, with another image"),
    "queue_drift": _q("1", "lower", "Drift of the queue"),
    "queue_drift_oldest": _q("1", "lower", "Drift of the queue's oldest entry"),
    "learning_recall": _q("%", "higher", "Validation recall, mean over the training"),
    "learning_binding": _q("%", "higher", "Attribute swaps told apart, mean over the training"),
    "steps_to_recall": _q("step", "lower", "Steps to recall"),
    "cpu_seconds_to_recall": _q("s", "lower", "Processor time to recall"),
    "steps_to_binding": _q("step", "lower", "Steps to binding"),
}
"""The only place where a unit, a direction or a display name is written down."""

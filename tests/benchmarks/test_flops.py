"""Counted work against hand-computed answers, and the traps that make counters silently wrong."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from vlpbench.archs import registry
from vlpbench.archs.types import Can
from vlpbench.benchmarks import flopcount
from vlpbench.benchmarks.flopcount import Count, CrossCheck, count, cross_check
from vlpbench.benchmarks.measures import flops
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.record import Cell

META = torch.device("meta")


def measured(**fields) -> Samples:
    cell = Cell(measure="flops", **fields)
    return flops.Flops().run(Subject.build(cell, meta=True), cell)


def test_a_multiply_add_is_two_flops_for_both_counters() -> None:
    layer, x = nn.Linear(64, 64, device=META), torch.empty(10, 64, device=META)
    by_hand = 2 * 10 * 64 * 64
    assert by_hand == 81_920
    assert count(lambda: layer(x)).flops == by_hand
    assert cross_check(layer, x, module=layer).flops == by_hand  # fvcore itself says 40,960 and calls it flops


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_attention_is_counted_by_both(device: str) -> None:
    heads, queries, keys, width, value_width = 3, 5, 7, 4, 6
    query = torch.zeros(2, heads, queries, width, device=device)
    key = torch.zeros(2, heads, keys, width, device=device)
    value = torch.zeros(2, heads, keys, value_width, device=device)
    by_hand = 2 * 2 * heads * queries * keys * (width + value_width)
    attend = F.scaled_dot_product_attention
    assert cross_check(attend, query, key, value).flops == by_hand
    found = count(lambda: attend(query, key, value))
    # Several versions of torch count fused attention on a CPU as nothing; then it must be noticed.
    assert found.flops == by_hand or (device == "cpu" and found.uncounted)


def test_shapes_that_are_remembered_are_those_that_meta_computes() -> None:
    long, narrow = torch.empty(6, 4, device=META), torch.empty(4, 6, device=META).t()

    def sizes() -> list[object]:
        both = [(x + 1, x.float() + True, x.sum(), x.max(dim=1), F.layer_norm(x, (4,))) for x in (long, narrow)]
        leaves = tree_leaves([both, torch.cat([long, narrow]), long.double(), narrow @ long.t()])
        return [(x.shape, x.stride(), x.dtype, x.device) for x in leaves]

    alone = sizes()
    with flopcount.counting() as so_far:
        assert sizes() == alone
        assert sizes() == alone
        assert so_far().flops == 2 * (2 * 6 * 4 * 6)


def test_views_share_memory_under_the_counter_and_values_are_computed() -> None:
    x = torch.arange(6.0)
    with flopcount.counting():
        x.view(2, 3)[0].add_(1)
        assert (x + x).tolist() == [2, 4, 6, 6, 8, 10]
        assert (x + x + x).tolist() == [3, 6, 9, 9, 12, 15]
        assert torch.empty(2, device=META).view(2)._is_view()


def test_inference_mode_hides_no_product() -> None:
    layer, x = nn.Linear(4, 8, device=META), torch.empty(3, 4, device=META)
    with torch.inference_mode():
        assert count(lambda: F.linear(x, layer.weight)).flops == 2 * 3 * 4 * 8


def test_causal_attention_counts_as_full() -> None:
    query = torch.empty(1, 2, 8, 4, device=META)
    full = count(lambda: F.scaled_dot_product_attention(query, query, query))
    causal = count(lambda: F.scaled_dot_product_attention(query, query, query, is_causal=True))
    assert causal.flops == full.flops == 4 * 2 * 8 * 8 * 4


def test_attention_backward_on_meta_is_twice_its_forward() -> None:
    query = torch.empty(1, 2, 8, 4, device=META, requires_grad=True)
    forward = 4 * 2 * 8 * 8 * 4
    both = count(lambda: F.scaled_dot_product_attention(query, query, query).sum().backward())
    assert both.flops == 3 * forward


def test_attention_backward_on_a_processor_computes_its_scores_again() -> None:
    query = torch.zeros(1, 4, 128, 32, requires_grad=True)
    forward = 4 * 4 * 128 * 128 * 32
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        found = count(lambda: F.scaled_dot_product_attention(query, query, query).sum().backward())
    backward = found.by_operator["_scaled_dot_product_flash_attention_for_cpu_backward"] if found.flops else 0
    # Five products instead of four: the reason to count on meta. Versions that count nothing must say so.
    assert backward == 5 * forward // 2 or found.uncounted


def _encoder() -> tuple[nn.Module, torch.Tensor, int]:
    rows, length, width, hidden = 2, 5, 32, 48
    layer = nn.TransformerEncoderLayer(width, 4, hidden, batch_first=True).eval()
    projections = 2 * rows * length * width * (3 * width + width)
    attention = 4 * rows * length**2 * width
    feed_forward = 2 * 2 * rows * length * width * hidden
    return layer, torch.zeros(rows, length, width), projections + attention + feed_forward


def test_the_fused_inference_path_hides_work_and_is_noticed() -> None:
    layer, x, _ = _encoder()
    with torch.no_grad():
        found = count(lambda: layer(x))
    assert found.flops == 0
    assert found.uncounted == {"_transformer_encoder_layer_fwd": 1}


def test_the_settings_of_a_subject_switch_the_fused_inference_path_off() -> None:
    layer, x, by_hand = _encoder()
    subject = Subject.build(Cell(arch="clip", size="tiny", measure="latency", attention="eager"))
    with subject.settings(), torch.no_grad():
        found = count(lambda: layer(x))
    assert found.flops == by_hand
    assert found.uncounted == {}
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_fused_inference_path_plays_no_part_on_meta() -> None:
    layer, x, by_hand = _encoder()
    with torch.no_grad():
        assert count(lambda: layer.to(META)(x.to(META))).flops == by_hand


@pytest.mark.parametrize(
    ("options", "by_hand"),
    [
        ({"stride": 2, "padding": 1}, 2 * 2 * (4 * 4) * 8 * (4 * 3 * 3)),  # (8 + 2 - 3) // 2 + 1 = 4
        ({"dilation": 2}, 2 * 2 * (4 * 4) * 8 * (4 * 3 * 3)),  # 8 - 2 * 2 = 4
        ({"groups": 4}, 2 * 2 * (6 * 6) * 8 * (1 * 3 * 3)),
    ],
)
def test_convolutions_on_meta(options: dict, by_hand: int) -> None:
    layer, image = nn.Conv2d(4, 8, 3, **options, device=META), torch.empty(2, 4, 8, 8, device=META)
    assert count(lambda: layer(image)).flops == by_hand
    assert cross_check(layer, image, module=layer).flops == by_hand
    assert nn.Conv2d.forward is not flopcount._conv2d_as_product


def test_a_gru_is_counted_by_both() -> None:
    gru = nn.GRU(6, 8, batch_first=True).to("meta")
    x = torch.empty(3, 5, 6, device="meta")
    by_hand = 2 * 3 * 5 * 3 * 8 * (6 + 8)  # three gates, each of a product with the word and one with the state
    with torch.no_grad():
        assert count(lambda: gru(x)).flops == by_hand
    found = cross_check(gru, x, module=gru)
    assert (found.flops, found.uncounted) == (by_hand, {})


def test_norms_are_kept_apart_from_products() -> None:
    layer, x = nn.LayerNorm(16, device=META), torch.empty(3, 16, device=META)
    found = cross_check(layer, x, module=layer)
    assert found.flops == 0
    assert found.others > 0
    assert count(lambda: layer(x)).flops == 0


def test_the_self_test_passes_here_and_notices_a_broken_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    flopcount.self_test()
    monkeypatch.setattr(flopcount, "count", lambda call: Count(flops=0, by_operator={}, uncounted={}))
    with pytest.raises(
        flopcount.CounterBroken, match=f"2048 FLOPs counts 0 by torch {torch.__version__}".split("+")[0]
    ):
        flopcount.self_test.__wrapped__()


def test_disagreement_and_uncounted_operators_are_flagged() -> None:
    torch_says = Count(flops=1000, by_operator={}, uncounted={})
    near = CrossCheck(flops=991, others=0, by_operator={}, uncounted={})
    far = CrossCheck(flops=980, others=0, by_operator={}, uncounted={"aten::flash_attention": 12})
    assert flops._flags(torch_says, near) == []
    (flag,) = flops._flags(torch_says, far)
    assert "2.0%" in flag
    assert "aten::flash_attention x12" in flag
    (flag,) = flops._flags(Count(flops=991, by_operator={}, uncounted={"fused_attention": 2}), near)
    assert flag == "operators not counted: fused_attention x2"


def _transformer(layers: int, tokens: int, width: int) -> int:
    """Projections 4 D^2, feed-forward 8 D^2 per token, attention 2 N^2 D per layer, in multiply-adds; times two."""
    return 2 * layers * (12 * tokens * width**2 + 2 * tokens**2 * width)


def test_the_components_of_clip_in_closed_form() -> None:
    parts = measured(arch="clip", size="b16", batch=3).detail["by_component"]
    assert parts["image"] == 2 * 196 * 768 * 768 + _transformer(12, 197, 768)
    assert parts["text"] == _transformer(12, 77, 512)
    assert parts["head"] == 2 * (768 * 512 + 512 * 512)
    assert parts["fusion"] == 0


def test_every_architecture_agrees_and_its_parts_sum() -> None:
    for arch in ("clip", "clip+late", "vilt", "albef"):
        found = measured(arch=arch, size="tiny", batch=2)
        assert found.flags == [], arch
        assert sum(found.detail["by_component"].values()) == pytest.approx(found.values["flops_forward"][0])
        assert 2 < found.values["flops_forward_backward"][0] / found.values["flops_forward"][0] <= 3, arch


def _everything() -> list[tuple[str, str]]:
    """Every registered architecture at every size, and every late-fusion relative."""
    found = []
    for spec in registry.BUILT_IN:
        names = [spec.name]
        if Can.EMBED in spec.can and Can.FUSE not in spec.can:
            names.append(spec.name + registry.LATE)
        found += [(name, size) for name in names for size in spec.sizes]
    return found


@pytest.mark.parametrize(
    ("arch", "size"),
    [pytest.param(*each, marks=[] if each[1] in ("tiny", "small") else pytest.mark.slow) for each in _everything()],
)
def test_two_counters_agree_on_every_architecture_at_every_size(arch: str, size: str) -> None:
    subject = Subject.build(Cell(arch=arch, size=size, measure="flops", batch=2), meta=True)
    with subject.settings():
        forward = sum(part.flops for part in flops.components(subject).values())
        check = flops._cross_check(subject)
    assert check.flops == pytest.approx(forward, rel=flops.TOLERANCE)
    assert not check.uncounted


def _by_size(arch: str, sizes: list[tuple[tuple[int, int], int]]) -> list[float]:
    """Forward FLOPs at an image size and a text length each."""
    size = {"arch": arch, "size": "tiny", "batch": 2}
    return [measured(image=image, text_len=length, **size).values["flops_forward"][0] for image, length in sizes]


@pytest.mark.parametrize("arch", sorted({arch for arch, size in _everything() if size == "tiny"}))
def test_work_follows_image_size_and_text_length(arch: str) -> None:
    """Work is a quadratic in the tokens of a sequence, so that third differences over equal steps vanish; between
    linear, if attention were free, and quadratic, if there were nothing else."""
    side = Subject.build(Cell(arch=arch, size="tiny", measure="flops"), meta=True).model.image_size[0]
    sweeps = [[((side, side), 6 * n) for n in (1, 2, 3, 4)]]
    if registry.get(arch).input == "pixels":  # regions are as many whatever the size of the image
        sweeps.append([((side, side * n), 12) for n in (1, 2, 3, 4)])
    for sizes in sweeps:
        a, b, c, d = _by_size(arch, sizes)
        assert a < b < c < d < 16 * a
        assert c - b >= b - a > 0
        assert d - 3 * c + 3 * b - a == pytest.approx(0, abs=1e-3 * a)


def test_every_record_says_that_causal_attention_counts_as_full() -> None:
    found = measured(arch="clip", size="b16")
    assert found.detail["causal_attention"] == "counted as full"
    assert found.detail["by_component"]["text"] == _transformer(12, 77, 512)  # all 77 x 77 scores of a causal encoder


def test_the_parts_are_the_whole_inference() -> None:
    subject = Subject.build(Cell(arch="albef", size="tiny", measure="flops", batch=2), meta=True)
    with subject.settings(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        subject.forward(subject.batch())
    parts = measured(arch="albef", size="tiny", batch=2).detail["by_component"]
    assert 2 * sum(parts.values()) == counter.get_total_flops()


def test_a_training_step_of_clip_by_hand() -> None:
    forward = measured(arch="clip", size="tiny", batch=4).values["flops_forward"][0]
    found = measured(arch="clip", size="tiny", batch=4, objectives=("itc",)).detail["training"]
    similarity = 2 * 4 * 4 * 16  # 4 images x 4 texts, joint width 16
    assert 4 * found["forward"] == 4 * forward + similarity
    assert found["momentum"] == 0


def test_momentum_costs_a_second_forward() -> None:
    fields = {"arch": "albef", "size": "tiny", "batch": 4, "objectives": ("itc", "itm", "mlm"), "queue_size": 8}
    off, queue, distill = (measured(momentum=m, **fields).detail["training"] for m in ("off", "queue", "distill"))
    assert off["momentum"] == 0
    assert 0 < queue["momentum"] < distill["momentum"] < off["total"] / 2
    assert distill["total"] - distill["momentum"] == off["total"]
    # Without soft targets the teacher only embeds; its products and the wider contrast are all that is added.
    parts = measured(arch="albef", size="tiny", batch=4).detail["by_component"]
    teacher = 4 * (parts["image"] + parts["text"] + parts["head"])
    wider = 3 * 2 * 2 * 4 * 8 * 16  # two similarities (4 x 8 of the queue, joint width 16), forward and backward
    assert 4 * queue["momentum"] == pytest.approx(teacher + wider, rel=0.05)


def test_negatives_that_replace_pairs_are_not_counted_as_added_pairs() -> None:
    fields = {"arch": "vilt", "size": "tiny", "batch": 4, "objectives": ("itm",)}
    forward = measured(arch="vilt", size="tiny", batch=4).values["flops_forward"][0]
    head = 2 * 32 * 2  # width x two classes
    added = measured(negatives="uniform", **fields).detail["training"]["forward"]
    replaced = measured(negatives="replace", **fields).detail["training"]["forward"]
    # Matching reads the first token: in the last block, the other 20 of 21 ask nobody and are not transformed.
    spared = 2 * 20 * (6 * 32**2 + 2 * 21 * 32)
    assert replaced == forward + head - spared
    fusion = measured(arch="vilt", size="tiny", batch=4).detail["by_component"]["fusion"]
    assert added == pytest.approx(forward + 2 * fusion + 3 * (head - spared), rel=1e-3)


def test_work_grows_with_the_image_and_the_text_as_declared() -> None:
    small = measured(arch="clip", size="b32", image=(64, 64), text_len=16).detail["by_component"]
    assert small["image"] == 2 * 4 * 3072 * 768 + _transformer(12, 5, 768)
    assert small["text"] == _transformer(12, 16, 512)

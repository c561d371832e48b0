"""Subjects: what is built, what it is fed, and the state of torch around it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend
from torch.nn.attention import _cur_sdpa_kernel_backends as allowed_backends
from vlpbench.archs.learner import Recipe, SpecialTokens
from vlpbench.archs.model import VLModel
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import clock, init, settings, subject
from vlpbench.benchmarks.init import BLOCK, tiled_init
from vlpbench.benchmarks.subject import Subject, recipe_of, special_tokens
from vlpbench.results.record import Cell


def cell(**fields) -> Cell:
    return Cell(**{"arch": "clip", "size": "tiny", "measure": "latency", "batch": 3} | fields)


def build(**fields) -> Subject:
    return Subject.build(cell(**fields))


def weights(built: Subject) -> torch.Tensor:
    return torch.cat([p.flatten() for p in built.model.parameters()])


def test_equal_seeds_build_equal_weights_and_leave_the_generator_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = build(seed=1)
    torch.rand(5)
    assert torch.equal(weights(first), weights(build(seed=1)))
    assert not torch.equal(weights(first), weights(build(seed=2)))
    torch.manual_seed(7)
    assert torch.equal(torch.get_rng_state(), before)
    build()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_subject_is_ready_to_infer() -> None:
    built = build(arch="albef")
    assert not built.model.training
    with built.settings(), torch.inference_mode():
        image, text, pooled, tokens = built.forward(built.batch())
    width = built.model.width
    assert image.shape == text.shape == (3, built.model.embed_dim)
    assert pooled.shape == (3, width)
    assert tokens.shape == (3, built.model.text_len, width)
    assert all(torch.isfinite(output).all() for output in (image, text, pooled, tokens))


@pytest.mark.parametrize(("arch", "outputs"), [("clip", 2), ("vilt", 2), ("albef", 4), ("clip+late", 3)])
def test_a_pair_is_embedded_where_it_can_be_and_fused_where_it_can_be(arch: str, outputs: int) -> None:
    built = build(arch=arch)
    with torch.inference_mode():
        assert len(built.forward(built.batch())) == outputs


def test_batches_rotate_and_are_the_same_again() -> None:
    built = build(batch=5)
    seen = [built.batch() for _ in range(2 * len(built.batches))]
    half = len(seen) // 2
    assert half >= 2
    assert [id(batch) for batch in seen[:half]] == [id(batch) for batch in seen[half:]]
    assert not torch.equal(seen[0].image, seen[1].image)
    assert torch.equal(seen[0].image, build(batch=5).batch().image)
    ids = torch.cat([batch.sample_id for batch in seen[:half]])
    assert len(ids.unique()) == len(ids)  # no two pairs show the same image


def test_texts_are_full_and_made_of_ordinary_words() -> None:
    built = build(batch=50)
    text, tokens = built.batch().text, built.tokens
    assert text.mask.all()
    assert text.ids.shape == (50, built.model.text_len)
    assert (text.ids[:, 0] == tokens.cls).all()
    assert (text.ids[:, -1] == tokens.sep).all()
    assert text.ids[:, 1:-1].min() > max(tokens.pad, tokens.cls, tokens.sep or 0, tokens.mask)
    assert text.ids.max() < built.model.vocab_size


def test_large_inputs_rotate_over_two() -> None:
    with torch.device("meta"):
        built = Subject.build(cell(size="b16", batch=512), meta=True)
    assert len(built.batches) == 2  # 512 x 3 x 224 x 224 x 4 bytes = 308 MB each


def test_the_cell_replaces_the_size_of_image_and_text() -> None:
    built = build(image=(64, 32), text_len=9, changes=(("image_layers", 1), ("vocab_size", 33)))
    assert built.batch().image.shape == (3, 3, 64, 32)
    assert built.batch().text.ids.shape == (3, 9)
    assert built.batch().text.ids.max() < 33
    assert built.model.structure().image_layers == 1


def test_a_data_set_gives_its_geometry_and_tokens() -> None:
    built = build(data="scenes")
    geometry = subject._geometry(built.cell)
    assert geometry is not None
    assert built.model.image_size == geometry.image
    assert built.model.text_len == geometry.text_len
    assert built.tokens == SpecialTokens(
        pad=geometry.pad, cls=geometry.cls, sep=geometry.sep, mask=geometry.mask, vocab_size=geometry.vocab_size
    )


def test_on_meta_nothing_is_allocated() -> None:
    built = Subject.build(cell(arch="albef", size="base", batch=64), meta=True)
    assert {p.device.type for p in built.model.parameters()} == {"meta"}
    assert {built.batch().image.device.type, built.batch().text.ids.device.type} == {"meta"}


def _state() -> tuple:
    return (
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.enabled,
        torch.backends.mha.get_fastpath_enabled(),
        set(allowed_backends()),
    )


def test_settings_are_set_and_put_back_even_after_an_error() -> None:
    before = _state()
    built = build(threads=2, attention="eager")
    with built.settings():
        threads, precision, tf32, autotune, cudnn, fastpath, backends = _state()
    assert (threads, precision, tf32, autotune, fastpath) == (2, "highest", False, False, False)
    assert cudnn == before[4]
    assert backends == {SDPBackend.MATH}
    assert _state() == before
    with pytest.raises(ZeroDivisionError), build(threads=2).settings():
        raise ZeroDivisionError
    assert _state() == before


def test_tf32_is_set_where_it_is_asked_for() -> None:
    with settings.applied(cell(dtype="tf32"), torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_sdpa_takes_a_fused_kernel_and_eager_takes_none() -> None:
    from torch.profiler import ProfilerActivity, profile

    query = torch.rand(1, 2, 8, 16)
    seen = {}
    for attention in ("sdpa", "eager"):
        with (
            build(attention=attention).settings(),
            torch.inference_mode(),
            profile(activities=[ProfilerActivity.CPU]) as p,
        ):
            F.scaled_dot_product_attention(query, query, query)
        seen[attention] = {event.key for event in p.key_averages()}
    assert any("flash_attention" in name for name in seen["sdpa"])
    assert not any("flash_attention" in name for name in seen["eager"])
    assert "aten::_scaled_dot_product_attention_math" in seen["eager"]


@pytest.mark.parametrize(("dtype", "found"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_run_in_the_type_of_the_cell(dtype: str, found: torch.dtype) -> None:
    built = build(dtype=dtype)
    layer = nn.Linear(4, 4)
    with built.autocast():
        assert layer(torch.rand(2, 4)).dtype == found
    assert layer.weight.dtype == torch.float32
    with torch.inference_mode():
        assert torch.isfinite(built.forward(built.batch())[0]).all()


def test_autocast_of_one_step_sees_the_weights_of_the_step_before() -> None:
    built, layer, x = build(dtype="bf16"), nn.Linear(4, 4), torch.ones(1, 4)
    with built.settings():
        with built.autocast():
            before = layer(x)
        with torch.no_grad():
            layer.weight.add_(1.0)
        with built.autocast():
            assert torch.allclose(layer(x), before + 4, atol=0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"device": "tpu9"}, "'tpu9' is no device"),
        ({"device": "mps"}, "not measured here"),
        ({"device": "cuda:99"}, "torch sees [0-9]+ CUDA devices"),
        ({"dtype": "tf32"}, "use fp32 or bf16"),
    ],
)
def test_what_this_machine_cannot_run_is_said(fields: dict, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        build(**fields)


def test_a_recipe_takes_what_the_cell_says_and_else_the_defaults() -> None:
    assert recipe_of(cell(arch="albef", size="base")).queue_size == 65536
    found = recipe_of(cell(arch="albef", size="base", momentum="distill"))
    assert found.objectives == ("itc", "itm", "mlm")
    assert (found.momentum, found.momentum_rate, found.alpha, found.temperature) == ("distill", 0.995, 0.4, 0.07)
    said = recipe_of(cell(objectives=("itc",), weights=(2.0,), queue_size=12, alpha=0.0, momentum_rate=0.0))
    assert isinstance(said, Recipe)
    assert (said.objectives, said.weights, said.queue_size) == (("itc",), (2.0,), 12)
    assert (said.alpha, said.momentum_rate) == (0.0, 0.0)


@pytest.mark.parametrize("code", ["clean", "official"])
def test_a_cell_trains_as_our_code_or_as_the_released(code: str) -> None:
    fields = {"objectives": ("itc", "itm", "mlm"), "momentum": "distill", "momentum_rate": 0.0}
    built = build(arch="albef", batch=4, code=code, changes=(("dropout", 0.5),), **fields)
    learner = built.learner()
    assert learner.momentum is not None
    student, teacher = (next(iter(x.parameters())) for x in (learner.student(), learner.momentum.twin))
    batch = built.batch()
    with torch.no_grad():
        student.add_(1.0)
    loss = learner.total(learner(batch, draws=built.draws(learner, batch)))
    loss.backward()
    assert torch.equal(student, teacher) == (code == "official")
    assert learner.momentum.twin.training == (code == "official")
    learner.after_step()
    assert torch.equal(student, teacher)
    pooled = torch.randn(3, built.model.width)
    head = learner.objectives["itm"].get_submodule("head")
    logits = head(pooled)
    expected = logits[:, 1] if code == "official" else logits[:, 1] - logits[:, 0]
    assert torch.equal(learner.match_logits(pooled), expected)


def test_special_tokens_of_random_text() -> None:
    assert special_tokens(None, vocab_size=30522) == SpecialTokens(pad=0, cls=101, sep=102, mask=103, vocab_size=30522)
    assert special_tokens(None, vocab_size=40) == SpecialTokens(pad=0, cls=1, sep=2, mask=3, vocab_size=40)


def test_a_learner_trains_the_subjects_own_model() -> None:
    built = build(arch="albef", momentum="distill", objectives=("itc", "itm", "mlm"))
    learner = built.learner()
    assert learner.model is built.model
    assert learner.training
    batch = built.batch()
    draws = built.draws(learner, batch)
    assert draws.masked is not None
    assert (batch.text.ids.flatten()[draws.masked.position] == draws.masked.label).all()
    losses = learner(batch, draws=draws)
    assert set(losses) == {"itc", "itm", "mlm"}


def test_tokens_are_masked_only_where_an_objective_reads_them() -> None:
    for meta in (False, True):
        built = Subject.build(cell(objectives=("itc",)), meta=meta)
        assert built.draws(built.learner(), built.batch()).masked is None


def test_expected_masks_by_hand() -> None:
    built = Subject.build(cell(arch="vilt", objectives=("itm", "mlm"), batch=10, text_len=16), meta=True)
    learner = built.learner()
    draws = built.draws(learner, built.batch())
    assert draws.masked is not None
    assert len(draws.masked.position) == round(learner.recipe.mlm_probability * 10 * 15)


class _Sample(nn.Module):
    """Every kind of initial value that a model may hold."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.normal = nn.Parameter(torch.empty(size))
        self.truncated = nn.Parameter(torch.empty(size))
        self.linear = nn.Linear(512, size // 512)
        self.norm = nn.LayerNorm(16)
        self.register_buffer("positions", torch.arange(size))
        nn.init.normal_(self.normal, mean=1.0, std=0.5)
        nn.init.trunc_normal_(self.truncated, std=0.02, a=-0.04, b=0.04)


def test_tiled_weights_have_the_initialisers_distribution() -> None:
    size = 8 * BLOCK + 512
    torch.manual_seed(0)
    true = _Sample(size)
    with tiled_init():
        tiled = _Sample(size)
    for name, values in tiled.named_parameters():
        expected = dict(true.named_parameters())[name]
        assert values.mean().item() == pytest.approx(expected.mean().item(), abs=0.01), name
        assert values.std().item() == pytest.approx(expected.std().item(), rel=0.02, abs=1e-6), name
    assert tiled.truncated.abs().max() <= 0.04
    assert torch.equal(tiled.positions, true.positions)
    assert torch.equal(tiled.norm.weight, torch.ones(16))
    assert torch.equal(tiled.normal[:BLOCK], tiled.normal[BLOCK : 2 * BLOCK])
    assert torch.equal(tiled.normal[-512:], tiled.normal[:512])
    assert len(true.normal.unique()) > 2 * BLOCK


def test_small_tensors_are_drawn_in_full() -> None:
    with tiled_init():
        drawn = torch.empty(4 * BLOCK - 1).normal_()
    assert not torch.equal(drawn[:BLOCK], drawn[BLOCK : 2 * BLOCK])


def test_only_models_that_are_timed_are_tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "BLOCK", 16)
    assert len(build(measure="retrieval").model.word_embedding().weight.unique()) > 500
    assert len(build(measure="latency").model.word_embedding().weight.unique()) == 16


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile without code generation: graphs are captured and run as they are, in seconds."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


@pytest.mark.usefixtures("captured")
def test_a_compiled_subject_gives_the_same_answer_in_one_graph() -> None:
    plain, compiled = build(), build(compile=True)
    graphs = clock._compiled_graphs()
    with torch.inference_mode():
        expected, found = plain.forward(plain.batch()), compiled.forward(compiled.batch())
        assert clock._compiled_graphs() == graphs + 1
        compiled.forward(compiled.batch())
    assert clock._compiled_graphs() == graphs + 1
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("captured")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # dynamo looks at it, and silences it itself
def test_student_and_teacher_are_compiled_each_for_itself() -> None:
    built = build(arch="albef", compile=True, momentum="queue", objectives=("itc",))
    learner = built.learner()
    graphs = clock._compiled_graphs()
    (loss,) = learner(built.batch()).values()
    assert torch.isfinite(loss)
    assert clock._compiled_graphs() > graphs
    models = [module for module in learner.modules() if isinstance(module, VLModel)]
    assert len(models) == 2
    assert models[0].encode_image is not models[1].encode_image
    plain = build(arch="albef", momentum="queue", objectives=("itc",))
    with torch.no_grad():
        (expected,) = plain.learner().eval()(plain.batch()).values()
        (found,) = learner.eval()(built.batches[0]).values()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

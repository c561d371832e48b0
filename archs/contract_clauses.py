"""The clauses of the contract, each a function that yields what it finds wrong with a `Case`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from vlpbench.archs.contract_case import BATCH, Case, close, differing, gap, images, outputs, texts
from vlpbench.archs.model import take
from vlpbench.archs.registry import UnknownName
from vlpbench.archs.types import Can, Text, Unsupported

COMPONENTS = ("image", "text", "fusion", "embedding", "projection", "head")


def builds(case: Case) -> Iterator[str]:
    """The model is built on the CPU and on the meta device, the same from the same seed, and states its sizes."""
    model, again, meta = case.fresh(), case.fresh(), case.fresh(device="meta")
    for name in ("image_size", "text_len", "vocab_size", "width", "embed_dim"):
        if not hasattr(model, name):
            yield f"{type(model).__name__} sets no {name}"
    state, same = model.state_dict(), again.state_dict()
    if differing := [name for name in state if not torch.equal(state[name], same[name])]:
        yield f"the same seed gives another {differing[0]}"
    shapes = {name: tensor.shape for name, tensor in state.items()}
    if shapes != {name: tensor.shape for name, tensor in meta.state_dict().items()}:
        yield "the parameters on the meta device have other names or shapes than on the CPU"
    if real := [name for name, p in meta.named_parameters() if not p.is_meta]:
        yield f"{real[0]} is on {meta.get_parameter(real[0]).device} although the default device is meta"


def declares(case: Case) -> Iterator[str]:
    """The registration and the model name the same capabilities, and at least one of embedding and fusing."""
    if case.model.can != case.declared:
        yield f"registered as {'|'.join(case.declared.names())}, built as {'|'.join(case.model.can.names())}"
    if not case.model.can & (Can.EMBED | Can.FUSE):
        yield "a model must be able to EMBED or to FUSE"
    if Can.MASK in case.model.can and Can.FUSE not in case.model.can:
        yield "MASK is about fused text, so it comes with FUSE"


def works(case: Case) -> Iterator[str]:
    """Declared capabilities give the shapes that the interface states."""
    model, found, L = case.model, case.outputs, case.text.ids.shape[1]
    expected = {
        "embed_image": (BATCH, model.embed_dim),
        "embed_text": (BATCH, model.embed_dim),
        "pooled": (BATCH, model.width),
        "fused text": (BATCH, L, model.text_width),
        "decode": (BATCH, L, model.vocab_size),
    }
    for name, tensor in found.items():
        own = name == "decode" and tensor.shape[-1] > model.vocab_size  # logits of the model's own tokens come last
        if tuple((tensor[..., : model.vocab_size] if own else tensor).shape) != expected[name]:
            yield f"{name} has shape {tuple(tensor.shape)}, not {expected[name]}"
        if not tensor.isfinite().all():
            yield f"{name} is not finite"
    for can, name in ((Can.EMBED, "embed_dim"), (Can.FUSE, "width")):
        if (can in model.can) != (getattr(model, name) > 0):
            yield f"{name} is {getattr(model, name)} in a model that can {'|'.join(model.can.names())}"
    if Can.MASK in model.can:
        if "fused text" not in found:
            yield "MASK is declared, and there is no fused text to predict a token from"
            return
        logits = model.mlm_head()(found["fused text"][0])
        if len(logits) != L or logits.shape[1] < model.vocab_size:
            yield f"mlm_head gives {tuple(logits.shape)}, not {(L, model.vocab_size)}"


def refuses(case: Case) -> Iterator[str]:
    """What is not declared raises `Unsupported`."""
    model = case.model
    i, t = model.encode_image(case.image), model.encode_text(case.text)
    attempts: tuple[tuple[Can, str, Callable[[], object]], ...] = (
        (Can.EMBED, "embed_image", lambda: model.embed_image(i)),
        (Can.EMBED, "embed_text", lambda: model.embed_text(t)),
        (Can.FUSE, "fuse", lambda: model.fuse(i, t)),
        (Can.MASK, "mlm_head", model.mlm_head),
        (Can.DECODE, "decode", lambda: model.decode(i, t)),
    )
    for can, name, attempt in attempts:
        if can in model.can:
            continue
        try:
            attempt()
        except Unsupported:
            continue
        yield f"{can.name} is not declared, and {name} does not raise Unsupported"


def unit_norm(case: Case) -> Iterator[str]:
    """Embeddings have L2 norm 1."""
    for name in ("embed_image", "embed_text"):
        if name in case.outputs:
            norm = case.outputs[name].norm(dim=-1)
            if not close(norm, torch.ones_like(norm)):
                yield f"{name} has norms {norm.tolist()}"


def rows(case: Case) -> Iterator[str]:
    """A row's result does not depend on what else is in the batch: permuted and halved, it stays the same."""
    for index in (torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2])):
        text = Text(ids=case.text.ids[index], mask=case.text.mask[index])
        yield from differing(case, outputs(case.model, case.image[index], text), index, f"of rows {index.tolist()}")


def padding(case: Case) -> Iterator[str]:
    """Token ids at padding, and how much padding there is, change nothing."""
    other = Text(ids=torch.where(case.text.mask, case.text.ids, 1), mask=case.text.mask)
    every = torch.arange(BATCH)
    yield from differing(case, outputs(case.model, case.image, other), every, "with other ids at padding")
    short = torch.tensor([1, 3])
    length = int(case.text.mask[short].sum(dim=1).max())
    text = Text(ids=case.text.ids[short, :length], mask=case.text.mask[short, :length])
    found = outputs(case.model, case.image[short], text)
    full = {name: case.outputs[name][short] for name in found}
    cut = {name: x[:, :length] if name in ("fused text", "decode") else x for name, x in full.items()}
    for name, tensor in found.items():
        if not close(tensor, cut[name]):
            yield f"{name} changes by {gap(tensor, cut[name]):.2g} when padding is cut off"


def deterministic(case: Case) -> Iterator[str]:
    """In evaluation mode a call repeated gives the same bits, and leaves parameters and buffers alone."""
    before = {name: tensor.clone() for name, tensor in case.model.state_dict().items()}
    for name, tensor in outputs(case.model, case.image, case.text).items():
        if not torch.equal(tensor, case.outputs[name]):
            yield f"{name} differs by {gap(tensor, case.outputs[name]):.2g} when the call is repeated"
    for name, tensor in case.model.state_dict().items():
        if not torch.equal(tensor, before[name]):
            yield f"a forward in evaluation mode changes {name}"


def takes(case: Case) -> Iterator[str]:
    """States are gathered by `take`: gathered and then fused or embedded is fused or embedded and then gathered."""
    model, index = case.model, torch.tensor([3, 0, 0])
    i = take(model.encode_image(case.image), index)
    t = take(model.encode_text(case.text), index)
    found: dict[str, Tensor] = {}
    if Can.EMBED in model.can:
        found |= {"embed_image": model.embed_image(i), "embed_text": model.embed_text(t)}
    if Can.FUSE in model.can:
        found["pooled"] = model.fuse(i, t).pooled
    if Can.DECODE in model.can:
        found["decode"] = model.decode(i, t) * case.text.mask[index][..., None]
    yield from differing(case, found, index, "of gathered states")


def prepares(case: Case) -> Iterator[str]:
    """`prepare_image` changes no result, twice is as good as once, and what it returns can be gathered."""
    model = case.model
    once = model.prepare_image(model.encode_image(case.image))
    t, every = model.encode_text(case.text), torch.arange(BATCH)
    for state, what in (
        (once, "after prepare_image"),
        (model.prepare_image(once), "after prepare_image twice"),
        (take(once, every), "after prepare_image and take"),
    ):
        if Can.FUSE in model.can:
            yield from differing(case, {"pooled": model.fuse(state, t).pooled}, every, what)
        if Can.DECODE in model.can:
            decoded = model.decode(state, t) * case.text.mask[..., None]
            yield from differing(case, {"decode": decoded}, every, what)


def joint(case: Case) -> Iterator[str]:
    """What is fused or decoded depends on the image and on the text."""
    turned = torch.arange(BATCH).roll(1)
    image = outputs(case.model, case.image[turned], case.text)
    text = outputs(case.model, case.image, Text(ids=case.text.ids[turned], mask=case.text.mask[turned]))
    for name in ("pooled", "fused text", "decode"):
        if name in case.outputs and close(image[name], case.outputs[name]):
            yield f"{name} does not depend on the image"
        if name == "pooled" and name in case.outputs and close(text[name], case.outputs[name]):
            yield f"{name} does not depend on the text"


def direction(case: Case) -> Iterator[str]:
    """MASK: an earlier fused token sees a later one. DECODE: an earlier prediction does not, a later one does."""
    ids = case.text.ids.clone()
    ids[0, -1] = ids[0, -1] % (case.model.vocab_size - 1) + 1
    changed = outputs(case.model, case.image, Text(ids=ids, mask=case.text.mask))
    before = {name: case.outputs[name][0] for name in changed}
    if Can.MASK in case.model.can and close(changed["fused text"][0, :-1], before["fused text"][:-1]):
        yield "MASK is declared, and fused text tokens do not see the token after them"
    if Can.DECODE in case.model.can:
        if not close(changed["decode"][0, :-1], before["decode"][:-1]):
            yield "decode lets a prediction see a later token"
        if close(changed["decode"][0, -1], before["decode"][-1]):
            yield "decode does not let a prediction see its own token"


def steps(case: Case) -> Iterator[str]:
    """DECODE: texts written in steps, two for an image that change places, have the logits of the whole texts."""
    if Can.DECODE not in case.model.can:
        return
    model, rows, past = case.model, torch.arange(2 * BATCH), None
    ids = torch.stack([case.text.ids[0], case.text.ids[0].flip(0)]).repeat(BATCH, 1)
    state, text = model.encode_image(case.image), Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool))
    whole, source = model.decode(take(state, rows // 2), model.encode_text(text)), model.prepare_decode(state)
    for part in torch.arange(ids.shape[1]).tensor_split((2, 3)):
        logits, past = model.decode_step(source, ids[:, part], past, beams=2)
        if not close(logits, whole[:, part]):
            yield f"decode_step differs from decode by {gap(logits, whole[:, part]):.2g}"
        past, ids, whole = (take(x, rows ^ 1) for x in (past, ids, whole))


def components(case: Case) -> Iterator[str]:
    """Every parameter belongs to a known component."""
    for name, _ in case.model.named_parameters():
        found = case.model.component(name)
        if found not in COMPONENTS:
            yield f"{name} belongs to {found!r}, which is none of {', '.join(COMPONENTS)}"


def structure(case: Case) -> Iterator[str]:
    """`structure` gives positive sizes and at least one layer, the same on the meta device."""
    found = case.model.structure()
    for name in ("image_tokens", "text_tokens", "width"):
        if getattr(found, name) < 1:
            yield f"structure().{name} is {getattr(found, name)}"
    layers = (found.image_layers, found.text_layers, found.fusion_layers)
    if min(layers) < 0 or sum(layers) < 1:
        yield f"structure() counts {layers} image, text and fusion layers"
    if case.fresh(device="meta").structure() != found:
        yield "structure() differs on the meta device"


def gradients(case: Case) -> Iterator[str]:
    """Training reaches every parameter that asks for it, through one capability or another."""
    model = case.fresh()
    with torch.enable_grad():
        found = outputs(model, case.image, case.text)
        generator = torch.Generator().manual_seed(4)
        # Random weights: the plain sum of a layer norm's output is constant and passes no gradient on.
        loss = sum((x * torch.randn(x.shape, generator=generator)).sum() for x in found.values())
        torch.as_tensor(loss).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            yield f"no capability uses {name}"
        elif parameter.grad is not None and not parameter.grad.isfinite().all():
            yield f"the gradient of {name} is not finite"


def configurable(case: Case) -> Iterator[str]:
    """Image size, text length and vocabulary can be changed; an unknown field is refused with `UnknownName`."""
    (H, W), L, V = case.model.image_size, case.model.text_len, case.model.vocab_size
    changes = {"image_size": (2 * H, W), "text_len": L + 3, "vocab_size": V + 5}
    model = case.fresh(changes)
    for name, value in changes.items():
        if getattr(model, name) != value:
            yield f"built with {name}={value}, the model has {getattr(model, name)}"
            return
    if model.word_embedding().num_embeddings < V + 5:
        yield f"word_embedding has {model.word_embedding().num_embeddings} rows for a vocabulary of {V + 5}"
    text = texts(model)
    text.ids[0, 1] = V + 4
    outputs(model, images(model), text)
    try:
        case.fresh({"no_such_field": 1})
    except UnknownName:
        return
    yield "an unknown field of the configuration is not refused with UnknownName"


def low_precision(case: Case) -> Iterator[str]:
    """Under bfloat16 autocast every output is finite."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = outputs(case.model, case.image, case.text)
    for name, tensor in found.items():
        if not tensor.isfinite().all():
            yield f"{name} is not finite under bfloat16 autocast"


CLAUSES: tuple[Callable[[Case], Iterator[str]], ...] = (
    builds,
    declares,
    works,
    refuses,
    unit_norm,
    rows,
    padding,
    deterministic,
    takes,
    prepares,
    joint,
    direction,
    steps,
    components,
    structure,
    gradients,
    configurable,
    low_precision,
)
"""In the order they are checked: a later clause may rely on an earlier one."""

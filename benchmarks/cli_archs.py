"""``vlpbench archs``: the list, or one architecture taken apart on the meta device."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vlpbench.archs import registry

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from vlpbench.archs.registry import ArchSpec
    from vlpbench.benchmarks.measures.base import Samples
    from vlpbench.results.record import Cell

COMPONENTS = ("image", "text", "fusion", "head")
"""What the FLOPs of a pair are divided into."""


def archs(options: Namespace) -> int:
    """Prints the list, or the parts of the architecture that is named."""
    if options.name is None:
        listed = [_listed(spec) for spec in registry.specs().values()]
        print(json.dumps(listed, indent=2) if options.json else _list_text(listed))
        return 0
    spec = registry.get(options.name)
    if options.size not in spec.sizes:
        raise registry.UnknownName(registry.nearest(f"size of {spec.name}", options.size, list(spec.sizes)))
    parts = describe(spec, options.size)
    print(json.dumps(parts, indent=2) if options.json else parts_text(spec, parts))
    return 0


def describe(spec: ArchSpec, size: str) -> dict[str, Any]:
    """Structure, parameters and FLOPs of a pair by component, and of a training step in every momentum state."""
    from vlpbench.benchmarks.subject import Subject

    cell = _cell(spec, size)
    structure = Subject.build(cell, meta=True).model.structure()
    params, flops = _measured(cell, "params"), _measured(cell, "flops")
    found = {
        "name": spec.name,
        "size": size,
        "can": spec.can.names(),
        "tokens": {"image": structure.image_tokens, "text": structure.text_tokens},
        "width": structure.width,
        "layers": {
            "image": structure.image_layers,
            "text": structure.text_layers,
            "fusion": structure.fusion_layers,
        },
        "notes": list(structure.notes),
        "params": {name: int(params.values[f"params_{name}"][0]) for name in ("stored", "trainable", "touched")}
        | {"by_component": params.detail["by_component"]},
        "flops": {name: flops.values[f"flops_{name}"][0] for name in ("forward", "forward_backward")}
        | {name: flops.detail["by_component"][name] for name in COMPONENTS},
    }
    if len(spec.momentum) > 1:
        found["momentum"] = _states(spec, size)
    return found


def _states(spec: ArchSpec, size: str) -> dict[str, dict[str, Any]]:
    """What training in each momentum state holds, and what one step takes for a pair, without the optimiser.

    A step with momentum is counted beside one without, so the state ``off`` is known from any other.
    """
    states, off = {}, {}
    for momentum in (state for state in spec.momentum if state != "off"):
        cell = _cell(spec, size, objectives=spec.objectives, momentum=momentum, batch=2)
        learner, flops = _measured(cell, "params").detail["learner"], _measured(cell, "flops").detail["training"]
        trainable = learner["model"] + learner["objectives"]
        states[momentum] = {
            "stored": trainable + learner["momentum"],
            "trainable": trainable,
            "momentum": learner["momentum"],
            "queue": learner["queue"],
            "flops_step": flops["total"],
            "flops_momentum": flops["momentum"],
        }
        without = {"stored": trainable, "flops_step": flops["total"] - flops["momentum"]}
        off = states[momentum] | without | {"momentum": 0, "queue": 0, "flops_momentum": 0.0}
    return {"off": off} | states


def _cell(spec: ArchSpec, size: str, **fields: Any) -> Cell:
    from vlpbench.results.record import Cell

    return Cell(arch=spec.name, size=size, measure="params", **fields)


def _measured(cell: Cell, measure: str) -> Samples:
    from vlpbench.benchmarks.measures import base
    from vlpbench.benchmarks.subject import Subject

    cell = cell.model_copy(update={"measure": measure})
    return base.load(measure).run(Subject.build(cell, meta=True), cell)


def _listed(spec: ArchSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "title": spec.title,
        "paper": spec.paper,
        "can": spec.can.names(),
        "sizes": list(spec.sizes),
        "objectives": list(spec.objectives),
        "momentum": list(spec.momentum),
        "input": spec.input,
    }


def _list_text(listed: list[dict[str, Any]]) -> str:
    keys = ("name", "can", "sizes", "objectives", "momentum", "paper")
    rows: list[tuple[str, ...]] = [keys]
    for one in listed:
        rows.append(tuple(" ".join(one[key]) if isinstance(one[key], list) else one[key] for key in keys))
    return _columns(rows) + f"\n\nNAME{registry.LATE} puts a late-fusion head on one that only embeds."


def parts_text(spec: ArchSpec, parts: dict[str, Any]) -> str:
    """What `describe` found, for people."""
    tokens, layers, params, flops = parts["tokens"], parts["layers"], parts["params"], parts["flops"]
    lines = [
        f"{spec.title} ({parts['name']}, {parts['size']}): {spec.paper}",
        f"can {', '.join(parts['can'])}",
        f"{tokens['image']} image tokens, {tokens['text']} text tokens, width {parts['width']}",
        f"layers: {layers['image']} image, {layers['text']} text, {layers['fusion']} fusion",
        *parts["notes"],
        "",
        f"parameters: {_si(params['stored'])} stored, {_si(params['trainable'])} trainable, "
        f"{_si(params['touched'])} touched by a forward",
        _columns([(name, _si(count)) for name, count in params["by_component"].items()], indent=2),
        "",
        f"FLOPs of a pair: {_si(flops['forward'])} forward, {_si(flops['forward_backward'])} forward + backward",
        _columns([(name, _si(flops[name])) for name in COMPONENTS], indent=2),
    ]
    if states := parts.get("momentum"):
        names = {
            "stored": "parameters stored",
            "trainable": "parameters trainable",
            "momentum": "parameters of the momentum copy",
            "queue": "numbers in the queue",
            "flops_step": "FLOPs of a training step, per pair",
            "flops_momentum": "of which for momentum",
        }
        rows = [(f"training with {' + '.join(spec.objectives)}", *states)]
        rows += [(text, *(_si(state[key]) for state in states.values())) for key, text in names.items()]
        lines += ["", _columns(rows)]
    return "\n".join(lines)


def _columns(rows: Sequence[tuple[str, ...]], indent: int = 0) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(" " * indent + line for line in lines)


def _si(number: float) -> str:
    """With an SI prefix and four digits: ``209.3 M``."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.4g} {prefix}"
    return f"{number:.4g}"

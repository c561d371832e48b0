"""``vlpbench archs``: the list, or one architecture taken apart on the meta device."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import starmap
from typing import TYPE_CHECKING, Any

from vlpbench.archs import differences, registry
from vlpbench.benchmarks.fields import SuiteError
from vlpbench.benchmarks.folders import write_text

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from vlpbench.archs.differences import Difference
    from vlpbench.archs.registry import ArchSpec
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.reports.svg import Figure
    from vlpbench.results.record import Cell

COMPONENTS = ("image", "text", "fusion", "head")
"""What the FLOPs of a pair are divided into."""
PAIRS = 2
"""Of a training step that is counted; one pair alone has no negatives."""


def archs(options: Namespace) -> int:
    """Prints the list, the parts of the architecture that is named, or where defaults differ; or draws a structure."""
    if options.diagram and (options.name is None or options.explain):
        raise SuiteError("--diagram draws one architecture: name it, and leave --explain out")
    if options.explain:
        chosen = registry.specs().values() if options.name is None else [registry.get(options.name)]
        explained = [(spec, differences.of(spec)) for spec in chosen]
        found = {spec.name: [asdict(one) for one in rows] for spec, rows in explained}
        print(json.dumps(found, indent=2) if options.json else "\n\n".join(starmap(explained_text, explained)))
        return 0
    if options.name is None:
        listed = [_listed(spec) for spec in registry.specs().values()]
        print(json.dumps(listed, indent=2) if options.json else _list_text(listed))
        return 0
    spec = registry.get(options.name)
    if options.size not in spec.sizes:
        raise registry.UnknownName(registry.nearest(f"size of {spec.name}", options.size, list(spec.sizes)))
    if options.diagram:
        figure = diagram(spec, options.size)
        write_text(options.diagram, figure.standalone + "\n")
        found = {"diagram": options.diagram, "alt": figure.alt, "caption": figure.caption}
        print(json.dumps(found, indent=2) if options.json else f"{figure.alt}\n{options.diagram}")
        return 0
    parts = describe(spec, options.size)
    print(json.dumps(parts, indent=2) if options.json else parts_text(spec, parts))
    return 0


def describe(spec: ArchSpec, size: str) -> dict[str, Any]:
    """Structure, parameters and FLOPs of a pair by component, and of a training step in every momentum state."""
    from vlpbench.benchmarks import flopcount
    from vlpbench.benchmarks.measures import flops
    from vlpbench.benchmarks.measures.params import Params
    from vlpbench.benchmarks.measures.structure import outline
    from vlpbench.benchmarks.subject import Subject

    subject = Subject.build(_cell(spec, size), meta=True)
    with flopcount.counting():  # for its memory of shapes, whose computation is what takes time
        params = Params().run(subject, subject.cell)
    with subject.settings():
        parts = {name: count.flops for name, count in flops.components(subject).items()}
        both = flops.training(subject)["total"]
    found = {
        "name": spec.name,
        "size": size,
        "can": spec.can.names(),
        **outline(subject.model),
        "inputs": {
            name: {"described": side.described()} | asdict(side)
            for name, side in (("image", spec.inputs.image), ("text", spec.inputs.text))
        },
        "params": {name: int(params.values[f"params_{name}"][0]) for name in ("stored", "trainable", "touched")}
        | {"by_component": params.detail["by_component"]},
        "flops": {"forward": float(sum(parts.values())), "forward_backward": float(both)}
        | {name: float(parts[name]) for name in COMPONENTS},
    }
    if len(spec.momentum) > 1:
        found["momentum"] = _states(subject)
    return found


def diagram(spec: ArchSpec, size: str) -> Figure:
    """The structure of a built model as a drawing, with the recipe of most momentum that it knows."""
    from vlpbench.benchmarks import env
    from vlpbench.benchmarks.measures.structure import Structure
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.reports import diagram as drawings
    from vlpbench.reports.outline import read
    from vlpbench.results.record import Cell, Record, Status

    began = datetime.now(UTC)
    recipe = {"objectives": spec.objectives, "momentum": spec.momentum[-1], "batch": PAIRS}
    cell = Cell(arch=spec.name, size=size, measure="structure", **recipe)
    found = Structure().run(Subject.build(cell, meta=True), cell)
    record = Record(
        id="0" * 16,
        cell=cell,
        status=Status.OK,
        samples=found.series(),
        detail=found.detail,
        env=env.capture(),
        code=env.code_hash(),
        suite="archs",
        started=began.isoformat(),
        seconds=(datetime.now(UTC) - began).total_seconds(),
    )
    outline = read(record)
    if outline is None:
        raise SuiteError(f"the structure of {spec.name} tells no towers to draw")
    return drawings.diagram(outline, spec.name)


def _states(subject: Subject) -> dict[str, dict[str, Any]]:
    """What training in each momentum state holds, and what one step takes for a pair, without the optimiser."""
    from vlpbench.benchmarks.measures import flops
    from vlpbench.benchmarks.measures.params import of_learner

    states: dict[str, dict[str, Any]] = {}
    for momentum in subject.spec.momentum:
        update = {"objectives": subject.spec.objectives, "momentum": momentum, "batch": PAIRS}
        trained = replace(subject, cell=subject.cell.model_copy(update=update))
        learner = trained.learner()
        with trained.settings():
            work = flops.step(trained, learner)["total"] / PAIRS
        held = of_learner(learner)
        trainable = held["model"] + held["objectives"]
        states[momentum] = {
            "stored": trainable + held["momentum"],
            "trainable": trainable,
            "momentum": held["momentum"],
            "queue": held["queue"],
            "flops_step": work,
        }
    for state in states.values():
        state["flops_momentum"] = state["flops_step"] - states["off"]["flops_step"]
    return states


def _cell(spec: ArchSpec, size: str) -> Cell:
    from vlpbench.results.record import Cell

    return Cell(arch=spec.name, size=size, measure="params")


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
        f"image: {parts['inputs']['image']['described']}",
        f"text: {parts['inputs']['text']['described']}",
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


def explained_text(spec: ArchSpec, found: Sequence[Difference]) -> str:
    """Differences from released code, for people."""
    blocks = [f"{spec.title} ({spec.name}): where the default of a cell differs from the released code"]
    for number, one in enumerate(found, start=1):
        rows = [("official", one.official), ("ours", one.ours), ("why", one.why)]
        rows += [("switch", line) for line in one.switch.splitlines() or ("none",)]
        rows += [("see", one.adr)] if one.adr else []
        blocks.append("\n".join([f"{number}. {one.name}", *(_wrapped(*row) for row in rows)]))
    return "\n\n".join(blocks)


def _wrapped(label: str, text: str) -> str:
    return textwrap.fill(text, width=100, initial_indent=f"   {label:<9} ", subsequent_indent=" " * 13)


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

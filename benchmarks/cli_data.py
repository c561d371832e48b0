"""``vlpbench data``: the data sets there are, the state of one of them, and a miniature of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vlpbench.archs.registry import UnknownName, nearest
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.catalogue import SourceSpec, catalogue, folder_of
from vlpbench.benchmarks.data.sources import SOURCES

if TYPE_CHECKING:
    from argparse import Namespace


def data(options: Namespace) -> int:
    """Lists, checks or samples."""
    if options.action is None:
        return _listed(options)
    spec = _spec(options.name)
    return _check(spec, options) if options.action == "check" else _sample(spec, options)


def _spec(name: str | None) -> SourceSpec:
    if name is None:
        raise DataError(f"name a data set: {', '.join(catalogue())}")
    if name in SOURCES:
        raise DataError(f"{name} is generated and has no files; of the others there are {', '.join(catalogue())}")
    if name not in catalogue():
        raise UnknownName(nearest("data set", name, list(catalogue())))
    return catalogue()[name]


def _folder(spec: SourceSpec, root: str | None) -> Path:
    """The data set's folder below a root, or the root itself where it has no folder of that name."""
    if root is None:
        return folder_of(spec, None)
    if not Path(root).is_dir():
        raise DataError(f"--root {root} is no folder; {spec.needs()}")
    below = Path(root) / spec.folder
    return below if below.is_dir() else Path(root)


def _listed(options: Namespace) -> int:
    rows = [{"name": name, "title": title, "kind": "generated", "folder": None} for name, title in SOURCES.items()]
    for spec in catalogue().values():
        rows.append({"name": spec.name, "title": spec.title, "kind": spec.kind, "folder": _found(spec, options.root)})
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    width = max(len(row["name"] or "") for row in rows)
    for row in rows:
        print(f"{row['name']:<{width}}  {row['title']}")
        if row["kind"] != "generated":
            print(f"{'':<{width}}  {row['kind']}; {'in ' + row['folder'] if row['folder'] else 'not here'}")
    return 0


def _found(spec: SourceSpec, root: str | None) -> str | None:
    try:
        return str(folder_of(spec, None if root is None else Path(root)))
    except DataError:
        return None


def _check(spec: SourceSpec, options: Namespace) -> int:
    from vlpbench.benchmarks.data.doctor import check, told

    report = check(spec, _folder(spec, options.root), decode=not options.fast)
    print(json.dumps(report.as_dict(), indent=2) if options.json else "\n".join(told(report)))
    return 0 if report.sound else 1


def _sample(spec: SourceSpec, options: Namespace) -> int:
    from vlpbench.benchmarks.data.samples import write

    if options.out is None:
        raise DataError("say where the miniature goes with --out DIR")
    folder = write(spec, Path(options.out))
    if options.json:
        print(json.dumps({"name": spec.name, "root": options.out, "folder": str(folder)}))
    else:
        print(f"wrote {folder}; try: vlpbench data check {spec.name} --root {options.out}")
    return 0

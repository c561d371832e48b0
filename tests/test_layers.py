"""The arrows between the packages, read off the source, and which commands start without what is slow to import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from vlpbench.archs import registry

ROOT = Path(__file__).resolve().parent.parent
ARROWS = {
    "archs": {"archs"},
    "benchmarks": {"benchmarks", "archs", "results"},
    "results": {"results"},
    "reports": {"reports", "results"},
}
"""Package -> packages that it may import."""
OUTSIDE = {
    "archs": {"torch", "torchvision", "timm", "transformers", "open_clip", "safetensors", "numpy"},
    "results": {"pydantic"},
}
"""Package -> everything beside the standard library that it may import."""
HEAVY = {"torch", "torchvision", "timm", "open_clip", "transformers", "fvcore"}


@dataclass(frozen=True)
class Import:
    """One import statement's module."""

    file: str
    line: int
    module: str
    lazy: bool
    """Whether it stands inside a function, or is there for type checkers alone."""

    @property
    def package(self) -> str | None:
        """The package of ours that it names."""
        parts = self.module.split(".")
        return parts[1] if parts[0] == "vlpbench" and len(parts) > 1 else None

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, those under TYPE_CHECKING included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    later = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    later += [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    lazy = {id(node) for block in later for node in ast.walk(block)}
    name = path.relative_to(ROOT).as_posix()
    for node in ast.walk(tree):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} is a relative import"
            # `from vlpbench import archs` names a package; `from vlpbench.archs import types` one module of it
            module = node.module or ""
            found = [f"{module}.{alias.name}" for alias in node.names] if module == "vlpbench" else [module]
        yield from (Import(name, node.lineno, module, id(node) in lazy) for module in found)


def all_imports(package: str) -> list[Import]:
    return [one for path in sources(package) for one in imports(path)]


@pytest.mark.parametrize("package", ARROWS)
def test_a_package_imports_only_what_its_arrows_allow(package):
    found = all_imports(package)
    assert found, f"no source of {package} was read"
    wrong = [one for one in found if one.package and one.package not in ARROWS[package]]
    # The command line is where everything meets: it may ask for a report, once a command needs one.
    wrong = [one for one in wrong if not (Path(one.file).match("benchmarks/cli_*.py") and one.lazy)]
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("package", OUTSIDE)
def test_a_package_imports_nothing_foreign_beside_what_it_stands_on(package):
    allowed = OUTSIDE[package] | set(sys.stdlib_module_names) | {"vlpbench", "__future__", "_typeshed"}
    wrong = [one for one in all_imports(package) if one.module.split(".")[0] not in allowed]
    assert not wrong, "\n".join(map(str, wrong))


def test_reports_import_no_torch_and_nothing_that_does():
    wrong = [one for one in all_imports("reports") if one.module.split(".")[0] in HEAVY]
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("types", set()),
        ("registry", {"types", "model", "inputs"}),
        ("model", {"types"}),
        ("blocks", {"types", "model"}),
    ],
)
def test_within_archs_what_is_shared_knows_no_architecture(module, allowed):
    found = {one.module for one in imports(ROOT / "archs" / f"{module}.py") if one.package == "archs"}
    assert found <= {f"vlpbench.archs.{name}" for name in allowed}


def test_an_architecture_knows_no_other():
    names = {spec.target.partition(":")[0] for spec in registry.BUILT_IN}
    for name in names:
        path = ROOT / "archs" / f"{name.rpartition('.')[2]}.py"
        others = {one.module for one in imports(path)} & (names - {name})
        assert not others, f"{path.name} imports {others}"


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Every string of a file that is no docstring; a docstring may cite a paper."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


def test_no_architecture_is_named_in_the_code_of_benchmarks():
    """They ask what a model can do, and never which one it is."""
    names = re.compile(rf"(?<![\w-])({'|'.join(spec.name for spec in registry.BUILT_IN)})(?![\w-])")
    found = [
        f"{path.relative_to(ROOT)}:{line} says {text!r}"
        for path in sources("benchmarks")
        for line, text in strings(path)
        if names.search(text)
    ]
    modules = {spec.target.partition(":")[0] for spec in registry.BUILT_IN}
    found += [str(one) for one in all_imports("benchmarks") if one.module in modules]
    assert not found, "\n".join(found)


PROBE = """
import sys
from vlpbench.benchmarks.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("\\nloaded:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def loaded(folder: Path, *arguments: str) -> set[str]:
    """Top-level modules in memory after a command."""
    command = [sys.executable, "-c", PROBE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    assert "Traceback" not in done.stderr
    return set(done.stdout.rpartition("loaded:")[2].split())


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "run --help",
        "plan --help",
        "report --help",
        "archs --help",
        "check --help",
        "compare --help",
        "data --help",
        "claims --help",
        "--version",
    ],
)
def test_help_loads_nothing_that_takes_time(arguments, tmp_path):
    assert not loaded(tmp_path, *arguments.split()) & (HEAVY | {"numpy", "pandas", "matplotlib", "pydantic", "rich"})


@pytest.mark.parametrize(
    "arguments",
    [
        "archs",
        "archs --json",
        "archs albef --explain",
        "plan smoke",
        "plan paper --json",
        "plan notes",
        "claims",
        "claims detector-cost --json",
        "check nowhere",
        "data",
        "data check coco --root nowhere",
        "compare a b",
    ],
)
def test_commands_that_measure_nothing_load_no_torch(arguments, tmp_path):
    assert not loaded(tmp_path, *arguments.split()) & (HEAVY | {"pandas", "matplotlib"})


def test_a_report_loads_no_torch(tmp_path):
    from vlpbench.results.record import Cell, Env, Record, Series
    from vlpbench.results.store import Store

    env = Env(cpu="one", cores=1, memory=1, os="Linux", python="3.11", versions={}, threads=1)
    cell = Cell(arch="clip", size="tiny", measure="latency")
    samples = {"latency": Series(unit="s", values=(0.1, 0.2))}
    record = Record(
        id="0", cell=cell, status="ok", samples=samples, env=env, code="", suite="s", started="2026", seconds=1
    )
    Store(tmp_path / "results").append(record)
    assert not loaded(tmp_path, "report", "--results", "results", "--out", "page") & HEAVY
    assert (tmp_path / "page" / "index.html").is_file()


def test_the_registries_hold_strings_and_import_nothing(tmp_path):
    code = """
import sys
from vlpbench.archs import registry
from vlpbench.archs.objectives import table
from vlpbench.benchmarks.measures import base
targets = [s.target for rows in (registry.BUILT_IN, table.OBJECTIVES.values(), base.MEASURES.values()) for s in rows]
assert len(targets) > 12 and all(":" in target for target in targets)
print(*(t for t in targets if t.partition(":")[0] in sys.modules), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "False\n"

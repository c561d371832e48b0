"""Names, sizes, plug-ins, and the sizes that are meant to be compared."""

from __future__ import annotations

import dataclasses
from importlib.metadata import EntryPoint

import pytest
import torch
from vlpbench.archs import registry
from vlpbench.archs.model import parameter_count
from vlpbench.archs.types import Can

EVERY = [(name, size) for name, spec in registry.specs().items() for size in spec.sizes]


@pytest.fixture
def fresh_registry():
    registry.specs.cache_clear()
    yield
    registry.specs.cache_clear()


@pytest.mark.parametrize(("name", "size"), EVERY, ids=[f"{name}-{size}" for name, size in EVERY])
def test_every_size_builds_on_the_meta_device(name: str, size: str) -> None:
    with torch.device("meta"):
        model = registry.build(name, size)
    assert model.can == registry.get(name).can
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize(("size", "low", "high"), [("small", 0.63e6, 0.77e6), ("medium", 18e6, 22e6)])
def test_matched_sizes(size: str, low: float, high: float) -> None:
    with torch.device("meta"):
        counts = {
            name: parameter_count(registry.build(name, size))
            for name, spec in registry.specs().items()
            if size in spec.sizes
        }
    assert all(low <= count <= high for count in counts.values()), counts
    assert max(counts.values()) <= 1.1 * min(counts.values()), counts


@pytest.mark.parametrize(("size", "side"), [("tiny", 32), ("small", 32), ("medium", 64)])
def test_matched_sizes_read_the_same_inputs(size: str, side: int) -> None:
    with torch.device("meta"):
        models = [registry.build(name, size) for name, spec in registry.specs().items() if size in spec.sizes]
    assert {(model.image_size, model.text_len, model.vocab_size) for model in models} == {((side, side), 16, 40)}


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(registry.UnknownName, match=r"unknown architecture 'vitl': did you mean 'vilt'\?"):
        registry.get("vitl")
    with pytest.raises(registry.UnknownName, match=r"unknown size of albef 'smal': did you mean 'small'\?"):
        registry.build("albef", "smal")
    with pytest.raises(registry.UnknownName, match=r"field of vilt tiny 'text_length': did you mean 'text_len'\?"):
        registry.build("vilt", "tiny", {"text_length": 3})
    with pytest.raises(registry.UnknownName, match="unknown architecture 'zzz': known are"):
        registry.get("zzz")


def test_late_is_derived() -> None:
    spec, late = registry.get("clip"), registry.get("clip+late")
    assert late.can == spec.can | Can.FUSE
    assert (late.title, late.sizes, late.target) == ("CLIP + late fusion", spec.sizes, spec.target)


def test_changes_from_json_become_tuples() -> None:
    with torch.device("meta"):
        assert registry.build("clip", "tiny", {"image_size": [64, 32]}).image_size == (64, 32)


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=registry.GROUP)


PLUGGED = dataclasses.replace(registry.get("clip"), name="plugged")
TWIN = registry.get("clip")
NO_SPEC = "clip"


def test_a_plug_in_is_found(fresh_registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[self.value])
    monkeypatch.setattr(registry, "entry_points", lambda group: [point("plugged", "PLUGGED")])
    assert list(registry.specs())[-1] == "plugged"
    assert registry.build("plugged", "tiny").text_len == 16


def test_a_name_taken_twice_names_both(fresh_registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[self.value])
    monkeypatch.setattr(registry, "entry_points", lambda group: [point("clip", "TWIN")])
    with pytest.raises(ValueError, match=r"'clip' is registered twice: by vlpbench .* and by entry point TWIN"):
        registry.specs()


def test_a_plug_in_must_be_a_spec(fresh_registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[self.value])
    monkeypatch.setattr(registry, "entry_points", lambda group: [point("x", "NO_SPEC")])
    with pytest.raises(ValueError, match="must be an ArchSpec, not str"):
        registry.specs()

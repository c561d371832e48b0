"""Files of weights: read without running anything in them, recognised, and loaded tensor by tensor."""

from __future__ import annotations

import argparse
import importlib.util
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from vlpbench.archs import registry
from vlpbench.archs.formats.base import Format, Loaded, changes_of, load_weights, recognise
from vlpbench.archs.formats.start import IMAGE, TEXT
from vlpbench.archs.pretrained import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor
    from vlpbench.archs.learner import Learner

FILES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
"""What is read of a folder, the first that is there."""
WRAPPERS = ("state_dict", "model", "module", "model_state_dict")
"""Keys under which training programs put a state dict among other things."""
_INERT = (argparse.Namespace,)
"""Types that training programs store beside their weights, and that do nothing when they are read."""
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A checkpoint, opened for an architecture."""

    arch: str
    what: str
    """Names it in messages."""
    form: Format
    state: Mapping[str, Tensor]
    """In the form that the rules of `form` are about."""
    config: Mapping[str, Any]
    """Content of the config.json beside it."""

    def changes(self, size: str) -> dict[str, Any]:
        """Configuration fields at a size for which the checkpoint speaks: image, vocabulary, positions."""
        with torch.device("meta"):
            model = registry.build(self.arch, size)
        own = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
        patch = getattr(model, "patch", None)
        return changes_of(self.form, self.state, self.config, own, image=model.image_size, patch=patch)

    def load(self, learner: Learner) -> Loaded:
        """Raises `CheckpointError`, key by key, where it does not fit."""
        return load_weights(learner, self.form, self.state, self.what)


def open_weights(arch: str, paths: Sequence[Path], what: str) -> Weights:
    """Reads a checkpoint for an architecture.

    Args:
        arch: its name; one with a late-fusion head takes what its model takes.
        paths: a file or folder; or two, of which the first has a ViT and the second BERT.
        what: names it in messages.

    Raises:
        CheckpointError: for a file that cannot be read or would run code, and for a form that is not known.
    """
    states = [read(path) for path in paths]
    state = states[0] if len(states) == 1 else _side_by_side(states, what)
    form = recognise(state, formats_of(arch), what)
    return Weights(arch=arch, what=what, form=form, state=form.official(state), config=_config(paths[0]))


def formats_of(arch: str) -> tuple[Format, ...]:
    """The forms in which weights of an architecture are known."""
    spec = registry.get(arch)
    if not spec.formats:
        return ()
    module, _, attribute = spec.formats.partition(":")
    if importlib.util.find_spec(module) is None:
        return ()
    found: tuple[Format, ...] = getattr(importlib.import_module(module), attribute)
    return tuple(map(_behind_late_fusion, found)) if arch.endswith(registry.LATE) else found


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a torch file that holds nothing that would have to be run.

    Raises:
        CheckpointError: for anything else, with what to do.
    """
    file = next((path / name for name in FILES if (path / name).is_file()), path) if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"there is no file of weights {file}: name a file, or a folder with {' or '.join(FILES)}")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        return _unwrapped(_load(file), file)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a broken file makes its reader raise
        raise CheckpointError(
            f"{file} cannot be read ({type(error).__name__}: {_first(error)}): fetch it again"
        ) from error


def _load(file: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(_INERT)):
            warnings.simplefilter("ignore")  # of how a file was pickled; what matters is an error
            return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        found = _GLOBAL.search(str(error))
        whose = f"code of {found[1]}" if found else "code"
        raise CheckpointError(
            f"{file} is refused: to read it, {whose} would have to be run, and a file can run anything that way. If "
            "you trust it, write its tensors to a file of their own where its code is installed: "
            'python -c "import torch; '
            f"c = torch.load('{file.name}', map_location='cpu', weights_only=False); "
            "torch.save(c.get('state_dict', c.get('model', c)), 'weights.pt')\""
        ) from error
    except RuntimeError as error:
        if "TorchScript" not in str(error):
            raise
        raise CheckpointError(
            f"{file} is refused: it is a TorchScript archive, a program with its weights. Take the weights alone, as "
            'open_clip and transformers publish them, or write them to a file of their own: python -c "import torch; '
            f"torch.save(torch.jit.load('{file.name}', map_location='cpu').state_dict(), 'weights.pt')\""
        ) from error


def _unwrapped(content: Any, file: Path) -> dict[str, Tensor]:
    if isinstance(content, dict):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), (dict, list))), content)
        if isinstance(inner, list) and all(isinstance(part, dict) for part in inner) and len(inner) == 2:
            # Two encoders without a common module: images, then texts.
            inner = {
                f"{side}.{key}": t
                for side, part in zip(("img_enc", "txt_enc"), inner, strict=True)
                for key, t in part.items()
            }
        if isinstance(inner, dict):
            tensors = {key: t for key, t in inner.items() if isinstance(t, torch.Tensor)}
            if tensors and all(isinstance(key, str) for key in tensors):
                return _without_module(tensors)
    holds = f"a {type(content).__name__}" if not isinstance(content, dict) else ", ".join(map(repr, list(content)[:5]))
    raise CheckpointError(f"{file} holds no tensors by name, but {holds or 'nothing'}: give a file of weights")


def _without_module(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix of a model that was trained on several GPUs."""
    prefix = "module."
    wrapped = all(key.startswith(prefix) for key in tensors)
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items()} if wrapped else tensors


def _side_by_side(states: Sequence[Mapping[str, Tensor]], what: str) -> dict[str, Tensor]:
    if len(states) != 2:
        raise CheckpointError(f"{what} names {len(states)} files: a start has two, that of a ViT and that of BERT")
    return {f"{side}.{key}": t for side, state in zip((IMAGE, TEXT), states, strict=True) for key, t in state.items()}


def _config(path: Path) -> dict[str, Any]:
    file = (path if path.is_dir() else path.parent) / "config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _behind_late_fusion(form: Format) -> Format:
    def inner(key: str) -> str:
        return f"model.{key}" if key.startswith("model.") else key

    return replace(
        form,
        rules={inner(key): theirs for key, theirs in form.rules.items()},
        absent={inner(key): why for key, why in form.absent.items()} | {"model.fusion": "a head of our own"},
        made={inner(key): how for key, how in form.made.items()},
        grids={inner(key): grid for key, grid in form.grids.items()},
    )


def _first(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else "no reason given"

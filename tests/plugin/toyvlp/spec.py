"""What the entry point names: found without torch."""

from vlpbench.archs.registry import ArchSpec
from vlpbench.archs.types import Can

SPEC = ArchSpec(
    name="toy",
    title="Toy",
    paper="nobody, nowhere, never",
    target="toyvlp.arch:build",
    can=Can.EMBED | Can.FUSE,
    sizes=("tiny",),
    objectives=("itc", "itm"),
)

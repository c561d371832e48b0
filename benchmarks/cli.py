"""``vlpbench``: parses a command line and hands it to the command. Imports nothing that takes time.

Exit codes: 0 done, 1 some cells failed or a check found errors, 2 bad usage or unusable files, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

INTERRUPTED = 130
_FOLDERS = """Results lie in results/data/SUITE and reports in reports/out/SUITE where the current folder is a
checkout of vlpbench, and elsewhere in vlpbench-results/SUITE, with the report in its folder `report`."""

Arguments = tuple[tuple[str, dict[str, Any]], ...]
_DEBUG: Arguments = (("--debug", {"action": "store_true", "help": "show the traceback of an error"}),)
_SUITE: Arguments = (
    (
        "suite",
        {"nargs": "?", "default": "quick", "metavar": "SUITE|FILE.toml", "help": "smoke, quick, paper, notes, a file"},
    ),
    ("--only", {"metavar": "EXPR", "help": "keep some cells, as in size=base,measure=flops|latency"}),
    ("--device", {"help": "cpu, cuda or cuda:N for every cell, instead of what the suite says"}),
    ("--out", {"metavar": "DIR", "help": "results folder"}),
    ("--again", {"action": "store_true", "help": "measure what is done already once more"}),
)
_REUSE: Arguments = (
    (
        "--reuse",
        {
            "metavar": "DIR",
            "action": "append",
            "default": [],
            "help": "results folder or suite whose records of the same cells, measured here, count as done; "
            "may be given several times",
        },
    ),
)
_CACHE: Arguments = (("--cache", {"metavar": "DIR", "help": "folder of shared pre-trainings (default: OUT/.cache)"}),)
_EVENTS: Arguments = (
    ("--tensorboard", {"metavar": "DIR", "help": "write events of every pre-training, to follow it in TensorBoard"}),
)
_SCORES: Arguments = (
    ("--score-memory", {"metavar": "SIZE", "help": "pair scores held at once, as in 64MB or 2GiB (default: 512MB)"}),
)
_LANG: Arguments = (
    ("--lang", {"choices": ("en", "zh"), "default": "en", "help": "language of the report: en, zh (default: en)"}),
)
_WEIGHTS: Arguments = (
    (
        "--checkpoint",
        {
            "metavar": "NAME=FILE",
            "action": "append",
            "default": [],
            "help": "weights of an architecture: a file, two joined by + (a ViT and BERT), or open_clip:MODEL/TAG; "
            "may be given several times (docs/checkpoints.md)",
        },
    ),
    ("--download", {"action": "store_true", "help": "fetch weights that --checkpoint names by open_clip"}),
)
_DATA: Arguments = (
    ("--data-root", {"metavar": "DIR", "help": "folder of your data sets (default: $VLPBENCH_DATA; docs/data.md)"}),
)
_CLAIMS: Arguments = (
    ("--claims", {"metavar": "FILE.toml", "help": "claims of your own, in place of those of the notes"}),
)
_JSON: Arguments = (("--json", {"action": "store_true", "help": "print JSON for machines"}),)

COMMANDS: dict[str, tuple[str, str, str, Arguments]] = {
    "run": (
        "vlpbench.benchmarks.cli_run:run",
        "measure the cells of a suite and write the report",
        f"""Measures every cell of a suite that is not done yet, each in a process of its own, appends each result as it
comes, and writes the report. Run again after a kill or a failure, it does only what is missing.

{_FOLDERS}

example: vlpbench run quick --only measure=flops|latency""",
        (*_SUITE, *_REUSE, *_CLAIMS, *_WEIGHTS, *_DATA, *_CACHE, *_EVENTS, *_SCORES, *_LANG, *_JSON),
    ),
    "plan": (
        "vlpbench.benchmarks.cli_run:plan",
        "show what a run would do, and how long it would take",
        """Lists the cells of a suite: those that would run, are done, or are impossible and why, with an estimate of
the time. Measures nothing and writes nothing.

example: vlpbench plan paper --device cuda""",
        (*_SUITE, *_REUSE, *_CLAIMS, *_WEIGHTS, *_DATA, *_JSON),
    ),
    "ablate": (
        "vlpbench.benchmarks.cli_ablate:ablate",
        "take training objectives and momentum away one by one",
        f"""Trains one architecture with every set of its objectives (the factorial), up the ladder of ALBEF's paper
(matching and masked words; + contrast; + hard negatives; + momentum distillation of contrast, of masked words,
downstream), and through sweeps if asked. Each row gives TR and IR mean recall, VQA, step time and FLOPs, with paired
differences and 95 % intervals over seeds. Equal rows are run once; run again after a kill, it does what is missing.

By default 1,200 steps of batch 64 at size small: the ladder with 3 seeds takes under an hour on two cores. Contrast
after fusion is not offered: the states of a pair have then seen each other, so there is nothing left to tell apart.

{_FOLDERS}

example: vlpbench ablate --arch NAME --only ladder""",
        (
            ("--arch", {"required": True, "metavar": "NAME", "help": "one that `vlpbench archs` lists"}),
            ("--objectives", {"metavar": "A,B", "help": "of the factorial (default: itc, itm, mlm where it can)"}),
            ("--momentum", {"metavar": "A,B", "help": "states of factorial and sweeps: off, queue, distill"}),
            ("--seeds", {"type": int, "default": 3, "help": "trainings of each row (default: 3)"}),
            ("--size", {"default": "small", "help": "size of the models (default: small)"}),
            ("--budget", {"type": int, "metavar": "N", "help": "steps of pre-training (small: 1200)"}),
            ("--finetune", {"type": int, "metavar": "N", "help": "steps of fine-tuning on questions (small: 300)"}),
            ("--data", {"default": "scenes", "help": "data source (default: scenes)"}),
            ("--noise", {"metavar": "A,B", "help": "levels of --sweep noise, which it asks for (0,0.25,0.5)"}),
            (
                "--sweep",
                {"metavar": "A,B", "help": "queue_size, momentum_rate, alpha, noise, fusion_depth, depth_ratio"},
            ),
            ("--only", {"metavar": "A,B", "help": "of factorial, ladder, sweep (default: all that is asked for)"}),
            ("--device", {"default": "auto", "help": "cpu, cuda or cuda:N (default: auto)"}),
            ("--out", {"metavar": "DIR", "help": "results folder"}),
            ("--again", {"action": "store_true", "help": "measure what is done already once more"}),
            *_DATA,
            *_CACHE,
            *_EVENTS,
            *_SCORES,
            *_LANG,
            *_JSON,
        ),
    ),
    "report": (
        "vlpbench.benchmarks.cli_results:report",
        "write the report of results folders",
        f"""Writes one self-contained page, its Markdown twin, the figures and the tables (CSV, with --latex LaTeX) of
a results folder, or of several on one page, and prints the page's path. Measures nothing. A report in another language
than English has a folder of its own, such as `zh`, within the folder below unless --out names one.

{_FOLDERS}

example: vlpbench report --results results/data/quick --lang zh --latex""",
        (
            (
                "--results",
                {
                    "action": "append",
                    "metavar": "DIR",
                    "help": "results folder or name of a suite; given several times, one page holds all "
                    "(default: the latest run)",
                },
            ),
            ("--out", {"metavar": "DIR", "help": "folder of the report"}),
            *_LANG,
            ("--latex", {"action": "store_true", "help": "write every table as LaTeX too, below latex/"}),
        ),
    ),
    "archs": (
        "vlpbench.benchmarks.cli_archs:archs",
        "list the architectures, or take one apart",
        """Without a name: the architectures with what they can do. With one: its structure, parameters and FLOPs by
component, counted without allocating it, and for an architecture that knows momentum its states side by side.

With --explain: where the default of a cell differs from the released code of the architecture (of all without a
name), why, and which line of a suite file gives the official behaviour.

With --diagram: the structure of the built model as a drawing, in a file of its own.

example: vlpbench archs NAME --size base --json""",
        (
            ("name", {"nargs": "?", "metavar": "NAME", "help": "one of the architectures that `vlpbench archs` lists"}),
            ("--size", {"default": "base", "help": "one of its sizes (default: base)"}),
            ("--explain", {"action": "store_true", "help": "say where defaults differ from the released code"}),
            ("--diagram", {"metavar": "FILE", "help": "draw the structure of the built model as SVG"}),
            *_JSON,
        ),
    ),
    "claims": (
        "vlpbench.benchmarks.cli_claims:claims",
        "decide the claims of the notes, or of a file of yours",
        """Holds every claim against what was measured: supported, refuted, inconclusive or not measured, with effect,
95 % interval and the scale it was measured at. Measures nothing; `vlpbench run notes` measures what the claims need,
and cells of any other suite count where they are the same.

With an ID: its rule, cells, numbers, interval and scale, and what was published.

example: vlpbench claims detector-cost""",
        (
            ("id", {"nargs": "?", "metavar": "ID", "help": "a claim to explain"}),
            (
                "--results",
                {
                    "action": "append",
                    "metavar": "DIR",
                    "default": [],
                    "help": "results folder or name of a suite; may be given several times (default: all there are)",
                },
            ),
            *_CLAIMS,
            *_JSON,
        ),
    ),
    "data": (
        "vlpbench.benchmarks.cli_data:data",
        "list the data sets, look at yours, or write a miniature of one",
        """Without an action: the data sets there are, and which of them are in the data root.

check NAME looks at one: which files are there, how much of it there is beside what was published, whether a file's
content is the published one, which samples and pictures are missing or broken, each with the names of the first ten,
where the data set comes from and under which licence. Exit code 1 if something of what is there cannot be used.

sample NAME --out DIR writes a miniature in the public form below a data root: a few drawn pictures with true
annotations, to try a reader or a suite with. docs/data.md has the tree of folders.

example: vlpbench data check coco --root ~/data""",
        (
            ("action", {"nargs": "?", "choices": ("check", "sample"), "help": "what to do with a data set"}),
            ("name", {"nargs": "?", "metavar": "NAME", "help": "one of the data sets"}),
            ("--root", {"metavar": "DIR", "help": "data root, or the data set's folder (default: $VLPBENCH_DATA)"}),
            ("--out", {"metavar": "DIR", "help": "data root that a miniature is written below"}),
            ("--fast", {"action": "store_true", "help": "do not decode the pictures"}),
            *_JSON,
        ),
    ),
    "check": (
        "vlpbench.benchmarks.cli_results:check",
        "check a results folder",
        """Reads every record of a results folder and lists what is wrong: lines that cannot be read, failed cells,
cells of the suite that are missing, rounds not complete, quality flags, code that changed in between. Exit code 1 if
any of it is an error.

example: vlpbench check results/data/quick --suite quick""",
        (
            ("results", {"metavar": "RESULTS", "help": "results folder, or name of a suite"}),
            ("--suite", {"help": "suite that it should hold (default: the one its records name)"}),
            *_JSON,
        ),
    ),
    "compare": (
        "vlpbench.benchmarks.cli_compare:compare",
        "compare two sets of results, and gate on what changed",
        """Compares cells that both sets hold: B over A for every quantity, with a 95 % interval; what differs in
machine, versions and code; and cells that only one has. Rows that depend on the machine are marked where it differs.

A gate is QUANTITY[@ARCH]>FACTOR or <FACTOR. The quantity is one of results/README.md or `any`, which is all of which
less (>) or more (<) is better. The factor is a ratio such as 1.1x or a change such as +10% or -5%. A gate fails, with
exit code 1, where the whole interval of B/A is beyond the factor. An interval that reaches the factor does not fail; a
single sample of something noisy is undecided; a number that B's failed cell lacks, or a gate with nothing to judge,
fails. A gate that cannot be read is exit code 2.

example: vlpbench compare results/data/quick new --fail-if 'latency@NAME>1.1x' --fail-if 'recall_mean<-2%'""",
        (
            ("before", {"metavar": "A", "help": "results folder, JSON-lines file, or name of a suite"}),
            ("after", {"metavar": "B", "help": "likewise; ratios are B over A"}),
            (
                "--fail-if",
                {"metavar": "GATE", "action": "append", "default": [], "help": "a gate; may be given several times"},
            ),
            ("--out", {"metavar": "FILE", "help": "write the comparison as Markdown too"}),
            *_JSON,
        ),
    ),
}


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    shape = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="vlpbench",
        formatter_class=shape,
        description="Measures vision-language pre-training architectures: what they cost and what they learn.",
        epilog="example: vlpbench run quick\n\n`vlpbench COMMAND --help` says what a command does.",
    )
    top.add_argument("--version", action="store_true", help="print the version and end")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, (_, short, long, arguments) in COMMANDS.items():
        command = commands.add_parser(name, help=short, description=long, formatter_class=shape)
        for flag, options in (*arguments, *_DEBUG):
            command.add_argument(flag, **options)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns its exit code."""
    top = parser()
    options = top.parse_args(argv)
    if options.version:
        from importlib.metadata import version

        print(version("vlpbench"))
        return 0
    if options.command is None:
        top.print_help()
        return 2
    module, _, attribute = COMMANDS[options.command][0].partition(":")
    command: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(module), attribute)
    try:
        return command(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone, as `head` does; there is nobody to complain to
        return 0
    except Exception as error:
        if options.debug or not isinstance(error, expected()):
            raise
        print(f"vlpbench: {error}", file=sys.stderr)
        return 2


def expected() -> tuple[type[BaseException], ...]:
    """Errors whose message says it all. Imported only once there is one."""
    from vlpbench.archs.registry import UnknownName
    from vlpbench.archs.types import Unsupported
    from vlpbench.benchmarks.data.base import DataError
    from vlpbench.benchmarks.fields import SuiteError
    from vlpbench.results.store import StoreError

    return (UnknownName, Unsupported, DataError, SuiteError, StoreError, OSError)


if __name__ == "__main__":
    sys.exit(main())

"""Where our default differs from released code on purpose, as data. Imports no torch: ``vlpbench archs --explain``.

The tables are by what has the difference: an architecture, an objective, or training in general. What differs in form
alone, and gives the same numbers, is not in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlpbench.archs.registry import ArchSpec

CODE = 'code = "official"'
CLEAN = "docs/adr/0003-clean-and-official.md"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One deliberate difference."""

    name: str
    official: str
    """What the released code does."""
    ours: str
    """What the default of a cell does."""
    why: str
    switch: str = ""
    """Lines of a suite file that give a cell the official behaviour; empty where a cell cannot have it, and then
    ``adr`` says why."""
    adr: str = ""
    """Where it was decided, relative to the repository; empty where the code's own documentation says it."""


_HALF = Difference(
    name="negatives of matching",
    official="Half of the pairs get a random other image of the data set; B pairs are matched.",
    ours="Every pair is joined by one with a wrong image and one with a wrong text of the batch; 3 B are "
    "matched. Half are replaced on average where a cell asks for it.",
    why="One rule for all that match; each loss sees as many right pairs.",
    switch='negatives = "replace"',
)
"""Of ViLT and of the models before it."""
_ALIGNMENT = Difference(
    name="alignment of words and patches",
    official="0.1 of an optimal-transport distance between the two is added to matching.",
    ours="Not there.",
    why="Two architectures alone have it, and objectives are compared across architectures.",
    switch='objectives = "itm+mlm+wpa"\nweights = "1+1+0.1"',
)
MOMENTUM: tuple[Difference, ...] = (
    Difference(
        name="when the teacher moves",
        official="At the start of every training forward, before the teacher is run.",
        ours="After the optimiser's step.",
        why="The same numbers but for the very first step, and a forward changes no weights.",
        switch=CODE,
        adr=CLEAN,
    ),
    Difference(
        name="dropout in the teacher",
        official="Active in BERT: train() reaches the momentum networks too.",
        ours="Off.",
        why="The targets of distillation should not be noise.",
        switch=CODE,
        adr=CLEAN,
    ),
)
"""Of architectures whose recipe knows a momentum model."""
TRAINING: tuple[Difference, ...] = (
    Difference(
        name="weight decay of temperatures and tables of biases",
        official="A learnt temperature and tables of position biases are decayed like matrices.",
        ours="Neither is decayed.",
        why="Shrinking them is no regularisation.",
        switch=CODE,
        adr=CLEAN,
    ),
    Difference(
        name="optimiser",
        official="Each release has its own betas and clipping; ALBEF's are 0.9 and 0.999, and none.",
        ours="Betas of 0.9 and 0.98, gradients clipped at a norm of 1.",
        why="One optimiser for all, so that a comparison is of architectures. The switch gives ALBEF's.",
        switch=CODE,
        adr=CLEAN,
    ),
    Difference(
        name="schedule of the learning rate",
        official="Each release has its own, in epochs; ALBEF's rises and falls in stairs.",
        ours="Linear warm-up and one cosine, over steps.",
        why="A budget is in steps and mostly less than an epoch. `schedule.OfficialSchedule` is ALBEF's.",
        adr=CLEAN,
    ),
)
"""Of every architecture."""
OBJECTIVES: Mapping[str, tuple[Difference, ...]] = {
    "itc": (
        Difference(
            name="positives of contrast",
            official="In pre-training a pair is its own only positive; retrieval fine-tuning counts equal images too.",
            ours="All candidates that show the same image share the target, in a batch and in the queue.",
            why="Small data shows an image again while it is in the queue; calling it a negative would be wrong.",
            switch='positives = "pair"',
            adr=CLEAN,
        ),
        Difference(
            name="bounds of the temperature",
            official="Kept within 0.001 and 0.5 in ALBEF's pre-training; free in its retrieval fine-tuning; CLIP's "
            "stays above 0.01.",
            ours="Kept within 0.001 and 0.5 wherever it is trained.",
            why="One rule for every architecture; a temperature at a bound is a failure either way.",
            adr=CLEAN,
        ),
    ),
    "itm": (
        Difference(
            name="score of a matched pair",
            official="ALBEF and BLIP rank by the logit of 'match' alone.",
            ours="The log-odds of 'match', which order like its probability.",
            why="A shift of both logits means nothing to the loss and must not move a ranking.",
            switch=CODE,
            adr=CLEAN,
        ),
        Difference(
            name="which pairs can be negatives",
            official="In pre-training all but the pair itself, also one that shows the same image.",
            ours="None of the same image.",
            why="With several captions of an image, a caption of it would be called wrong.",
            switch='positives = "pair"',
            adr=CLEAN,
        ),
    ),
    "mlm": (
        Difference(
            name="a batch in which no word was drawn",
            official="The loss is a mean over nothing, which is no number.",
            ours="One word is masked.",
            why="Small batches of short texts meet it.",
            adr=CLEAN,
        ),
    ),
}
"""By objective."""
ARCHS: Mapping[str, tuple[Difference, ...]] = {
    "albef": (
        Difference(
            name="first token in answer ranking",
            official="The likelihood of an answer's first token counts twice: once as shortlist, once in the sum.",
            ours="Once.",
            why="The score is then the likelihood of the answer. `rank_answers(..., code='official')` adds it again.",
            adr=CLEAN,
        ),
    ),
    "blip": (
        Difference(
            name="floor under hard negatives",
            official="1e-4 is added to the probability of every negative in pre-training.",
            ours="Nothing is added: the draw is over logarithms.",
            why="The floor guards against a row of zeros, which logarithms cannot become.",
            adr=CLEAN,
        ),
        Difference(
            name="label smoothing of captions",
            official="0.1.",
            ours="None.",
            why="One loss of language modelling for all that decode.",
            switch="label_smoothing = 0.1",
        ),
        Difference(
            name="first token of a released matching model",
            official="`blip_itm` keeps [CLS] where a text is fused, although its head was trained on [ENC].",
            ours="[ENC].",
            why="As trained. `Matching(..., code='official')` keeps [CLS].",
            adr=CLEAN,
        ),
    ),
    "beit3": (
        Difference(
            name="captions",
            official="A word is predicted at a [MASK], from what stands before it.",
            ours="The next word is predicted from a word, as in every model that decodes.",
            why="All that decode train alike. `beit3_tasks.Captioning` is the official way.",
            adr=CLEAN,
        ),
    ),
    "coca": (
        Difference(
            name="what the summary token of a text sees",
            official="open_clip's mask of padding is shifted by one: the text, the first token of padding, and itself "
            "only where there is no padding.",
            ours="The text and itself; the sizes `b32` and `large`, whose weights were trained so, as open_clip.",
            why="Padding should change nothing.",
            switch='changes = { code = "official" }',
            adr="docs/adr/0002-whose-modules.md",
        ),
        Difference(
            name="weight of captions",
            official="2, against 1 of contrast.",
            ours="1 each.",
            why="One default for all; Table 8c of the paper has both.",
            switch='weights = "1.0+2.0"',
        ),
    ),
    "pali": (
        Difference(
            name="training of the ViT",
            official="Frozen, from weights of JFT-3B, but for a last phase at a higher resolution.",
            ours="Trained from the first step.",
            why="It starts from random weights, as every encoder in a comparison does.",
            adr=CLEAN,
        ),
        Difference(
            name="tasks of pre-training",
            official="A mixture of eight: span corruption, captions, questions, detection and others.",
            ours="Captions.",
            why="The data of a comparison are pairs of a picture and a caption.",
            adr=CLEAN,
        ),
    ),
    "vsepp": (
        Difference(
            name="hinge of a batch",
            official="The sum over its pairs.",
            ours="The mean.",
            why="A learning rate then does not depend on the batch size, as with every other loss.",
            switch='batch = 128\nweights = "128"',
            adr=CLEAN,
        ),
        Difference(
            name="first steps of the hinge",
            official="Over the hardest negatives from the first step on, above a CNN with weights of ImageNet.",
            ours="Over all negatives while the learning rate warms up, then over the hardest.",
            why="From random weights the hardest alone draw all embeddings to one point, and the loss stays at twice "
            "the margin.",
            switch=CODE,
        ),
        Difference(
            name="training of the CNN",
            official="Frozen for the first 30 epochs, fine-tuned in 15 more, from weights of ImageNet.",
            ours="Trained from the first step.",
            why="It starts from random weights, as every encoder in a comparison does.",
            adr=CLEAN,
        ),
    ),
    "uniter": (
        Difference(
            name="losses of pre-training",
            official="One for each step: masked words, matching with word-region alignment, or masked regions by "
            "features, classes or distributions of classes.",
            ours="Masked words and matching, in each step.",
            why="All that fuse train alike; data with boxes has no detector's classes. `uniter_tasks.Pretraining` has "
            "every loss.",
            adr=CLEAN,
        ),
        replace(_ALIGNMENT, name="alignment of words and regions"),
        _HALF,
    ),
    "vilbert": (
        Difference(
            name="losses of pre-training",
            official="Masked words, masked regions and alignment.",
            ours="Masked words and matching.",
            why="As for UNITER; `vilbert_tasks.Pretraining` has every loss.",
            adr=CLEAN,
        ),
        replace(_HALF, official="Half of the pairs get the caption of another image; B pairs are matched."),
    ),
    "vilt": (
        Difference(
            name="order and number of patches",
            official="A random permutation at every call, of which 200 at most are kept in pre-training.",
            ours="In their own order, all that are valid.",
            why="The same input gives the same result, and the cost does not depend on a draw.",
            switch='changes = { code = "official", keep = 200 }',
            adr="docs/adr/0002-whose-modules.md",
        ),
        Difference(
            name="what is padding of an image",
            official="A patch whose first pixel sums to zero over the channels.",
            ours="A patch whose first pixel is zero in every channel.",
            why="Real pixels can sum to zero.",
            switch='changes = { code = "official" }',
        ),
        _HALF,
        _ALIGNMENT,
        Difference(
            name="masked words",
            official="All tokens of a word are masked, or none.",
            ours="Tokens are.",
            why="As in every other architecture. Where every token is a word, as in `scenes`, the two are one.",
            switch="whole_words = true",
        ),
        Difference(
            name="changes of pictures",
            official="RandAugment in fine-tuning, without inversion and cutting out.",
            ours="None.",
            why="As in every other architecture; changed colours make wrong what a text says of them.",
            switch='augment = "randaugment"',
        ),
    ),
    "vlmo": (
        Difference(
            name="second contrast",
            official="Contrast is also behind the experts for pairs, with heads of its own; masked words weigh 0.25.",
            ours="One contrast, all losses alike.",
            why="As in the paper, and as in the other architectures.",
            switch='objectives = "itc_vl+itm+mlm"\nweights = "1+1+0.25"',
        ),
    ),
}
"""By architecture."""


def of(spec: ArchSpec) -> list[Difference]:
    """The differences of an architecture under the objectives and momentum states of its paper, its own first."""
    base = spec.name.partition("+")[0]
    found = [*ARCHS.get(base, ())]
    for name in spec.objectives:
        found += OBJECTIVES.get(name, ())
    return [*found, *(MOMENTUM if len(spec.momentum) > 1 else ()), *TRAINING]

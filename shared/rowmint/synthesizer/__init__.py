"""Synthesizers: the generative half of each family, forward only, in exact arithmetic.

`load_synthesizer` is the only way in; `family` holds the list of families. Random words, categorical draws and decoding
are integer or elementwise, so that a row is the same on every processor, with any kernel and any number of threads.
"""

from rowmint.synthesizer.exact.kernels import Kernel, choose_kernel
from rowmint.synthesizer.family import FAMILIES, SynthesizerFamily, exact_families, load_synthesizer, synthesizer_family
from rowmint.synthesizer.interface import (
    Candidates,
    Capabilities,
    CompletedCells,
    Completer,
    CompletionOptions,
    CompletionSupport,
    ConditionSupport,
    LikelihoodSynthesizer,
    Mechanism,
    Proposal,
    RowKeys,
    RowScores,
    Scorer,
    Synthesizer,
    Unit,
    Units,
    join,
    propose,
)

__all__ = [
    "FAMILIES",
    "Candidates",
    "Capabilities",
    "CompletedCells",
    "Completer",
    "CompletionOptions",
    "CompletionSupport",
    "ConditionSupport",
    "Kernel",
    "LikelihoodSynthesizer",
    "Mechanism",
    "Proposal",
    "RowKeys",
    "RowScores",
    "Scorer",
    "Synthesizer",
    "SynthesizerFamily",
    "Unit",
    "Units",
    "choose_kernel",
    "exact_families",
    "join",
    "load_synthesizer",
    "propose",
    "synthesizer_family",
]

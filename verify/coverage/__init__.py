"""Neuron coverage: what of a network a test set exercises, and what no input ever can.

    from verify.coverage import MaskRecord, NeuronCoverage, layers_of, measure
    layers = layers_of(graph)
    found = measure(graph, x, layers, {"nc": MaskRecord(NeuronCoverage(0.25), layers)})
    found["nc"].total.share

Coverage counts what was exercised. It says nothing of whether the answers were right, nor of how
robust they are; docs/guarantees.md says what was measured of that.
"""

from verify.coverage.criteria import (
    BoundaryCoverage,
    MaskCriterion,
    NeuronCoverage,
    StrongActivationCoverage,
    TopNeuronCoverage,
)
from verify.coverage.layers import Layer, activations, layers_of
from verify.coverage.measuring import Measured, measure
from verify.coverage.pairs import PairRecord
from verify.coverage.patterns import TopPatternRecord
from verify.coverage.profile import Profile, profile_of
from verify.coverage.records import LayerShare, MaskRecord
from verify.coverage.sections import MultisectionCoverage
from verify.coverage.spread import SpreadRecord

__all__ = [
    "BoundaryCoverage",
    "Layer",
    "LayerShare",
    "MaskCriterion",
    "MaskRecord",
    "Measured",
    "MultisectionCoverage",
    "NeuronCoverage",
    "PairRecord",
    "Profile",
    "SpreadRecord",
    "StrongActivationCoverage",
    "TopNeuronCoverage",
    "TopPatternRecord",
    "activations",
    "layers_of",
    "measure",
    "profile_of",
]

"""Neuron coverage: what of a network a test set exercises, and what no input ever can.

    from verify.coverage import NeuronCoverage, measure, layers_of
    found = measure(graph, x, layers_of(graph), {"nc": NeuronCoverage(0.25)})
    found["nc"].share

Coverage counts what was exercised. It says nothing of whether the answers were right, nor of how
robust they are; docs/guarantees.md says what was measured of that.
"""

from verify.coverage.criteria import (
    BoundaryCoverage,
    MaskCriterion,
    MultisectionCoverage,
    NeuronCoverage,
    StrongActivationCoverage,
    TopNeuronCoverage,
)
from verify.coverage.layers import Layer, activations, layers_of
from verify.coverage.measuring import Measured, measure
from verify.coverage.profile import Profile, profile_of
from verify.coverage.records import LayerShare

__all__ = [
    "BoundaryCoverage",
    "Layer",
    "LayerShare",
    "MaskCriterion",
    "Measured",
    "MultisectionCoverage",
    "NeuronCoverage",
    "Profile",
    "StrongActivationCoverage",
    "TopNeuronCoverage",
    "activations",
    "layers_of",
    "measure",
    "profile_of",
]

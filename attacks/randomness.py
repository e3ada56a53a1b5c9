"""Random numbers that depend on (seed, sample, lane) and on nothing else.

A counter-based generator: the i-th number of a key is a hash of (key, i). So a sample gets the
same random starts alone, in a batch, or in another order, on any device, and no generator state
exists that could leak between samples or into the caller's global generators.

Source:
    SplitMix64's finaliser: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
    generators", doi:10.1145/2714064.2660195 (constants: Stafford's variant 13).
"""

import hashlib
import math

import torch
from torch import Tensor

GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def mix(bits: Tensor) -> Tensor:
    """A bijection of 64-bit integers in which each output bit depends on every input bit."""
    bits = (bits ^ logical_shift(bits, 30)) * MIX_1
    bits = (bits ^ logical_shift(bits, 27)) * MIX_2
    return bits ^ logical_shift(bits, 31)


def logical_shift(bits: Tensor, by: int) -> Tensor:
    """Shift right, filling with zeros: torch's own shift of int64 copies the sign bit."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def content_keys(x: Tensor) -> Tensor:
    """One 63-bit key per sample from its values; shape (batch,), int64, on the device of `x`.

    Two equal samples get equal keys, hence equal random numbers, which does no harm.
    """
    rows = x.detach().cpu().contiguous().numpy()
    digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    keys = [int.from_bytes(digest, "little") >> 1 for digest in digests]
    return torch.tensor(keys, dtype=torch.int64, device=x.device)


def derive_keys(keys: Tensor, *labels: int | str | Tensor) -> Tensor:
    """New keys from `keys` and labels such as the seed, the attack's name, the restart.

    Args:
        keys: shape (batch,), int64.
        labels: a tensor label has one integer per key.
    """
    for label in labels:
        if isinstance(label, str):
            digest = hashlib.blake2b(label.encode(), digest_size=8).digest()
            label = int.from_bytes(digest, "little") >> 1
        keys = mix(keys * GOLDEN + mix(torch.as_tensor(label, device=keys.device) + GOLDEN))
    return keys


def uniform(keys: Tensor, size: int) -> Tensor:
    """Numbers in the open interval (0, 1), shape (batch, size), float64."""
    counter = torch.arange(1, size + 1, dtype=torch.int64, device=keys.device)
    bits = mix(mix(keys)[:, None] + counter * GOLDEN)
    # 52 bits and a half: centred in their cells, so that neither 0 nor 1 can occur.
    return (logical_shift(bits, 12).double() + 0.5) * 2.0**-52


def normal(keys: Tensor, size: int) -> Tensor:
    """Standard normal numbers, shape (batch, size), float64, by inversion."""
    return math.sqrt(2) * torch.erfinv(2 * uniform(keys, size) - 1)


def laplace(keys: Tensor, size: int) -> Tensor:
    """Standard Laplace numbers, shape (batch, size), float64, by inversion."""
    centred = 2 * uniform(keys, size) - 1
    return -centred.sign() * torch.log1p(-centred.abs())

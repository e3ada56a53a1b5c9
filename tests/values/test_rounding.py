"""Float32 is taken at its word only where torch computes in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from verify.values.rounding import single_is_single

MKLDNN: Any = torch.backends.mkldnn
CONVOLUTIONS = MKLDNN.conv


@pytest.fixture
def restored() -> Iterator[None]:
    """Torch's settings, as they were."""
    before = CONVOLUTIONS.fp32_precision
    yield
    torch.set_float32_matmul_precision("highest")
    CONVOLUTIONS.fp32_precision = before


def test_it_is_by_default() -> None:
    """Nobody asked for less."""
    assert single_is_single()


@pytest.mark.parametrize("word", ["high", "medium"])
def test_cheaper_products_are_seen(word: str, restored: None) -> None:
    """Products of matrices in TF32 or bfloat16."""
    torch.set_float32_matmul_precision(word)
    assert not single_is_single()


@pytest.mark.parametrize("word", ["bf16", "tf32"])
def test_cheaper_convolutions_are_seen(word: str, restored: None) -> None:
    """Convolutions have a setting of their own."""
    CONVOLUTIONS.fp32_precision = word
    assert not single_is_single()


@pytest.mark.parametrize("name", ["ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"])
def test_the_library_s_own_setting_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be told by the environment, past torch."""
    monkeypatch.setenv(name, "BF16")
    assert not single_is_single()
    monkeypatch.setenv(name, "strict")
    assert single_is_single()


def test_autocast_is_seen() -> None:
    """It turns float32 into bfloat16 in products and convolutions of its thread."""
    one = torch.full((1, 1, 1, 1), 1 + 2.0**-20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.nn.functional.conv_transpose2d(one, one).dtype == torch.bfloat16
        assert not single_is_single()
    assert single_is_single()

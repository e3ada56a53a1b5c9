"""One behaviour for every test: few threads, repeatable examples, no GPU tests without a GPU."""

import os

# Read by OpenMP when torch is loaded: on a machine that is busy with other things, threads that
# spin while they wait for each other make small tensors a hundred times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(2)

# Timing is not what a property states, and a failure must come back when it is looked for.
settings.register_profile("tashika", deadline=None, derandomize=True)
settings.load_profile("tashika")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))

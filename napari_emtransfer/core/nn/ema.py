"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Running mean of a module's floating-point state: parameters and, alike, the statistics of its norms.

    The decay ramps up as min(decay, (1 + t) / (10 + t)), so that the first steps do not keep the initialisation; with
    a decay of 0 there is no averaging, and `state` is a copy of the present weights. What is frozen does not drift.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self.state = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Move towards the present weights after optimiser step `iteration` (from 0)."""
        weight = 1 - min(self._decay, (1 + iteration) / (10 + iteration))
        live = self._module.state_dict()
        moving = [k for k, v in live.items() if v.is_floating_point() and self._decay > 0]
        if moving:
            torch._foreach_lerp_([self.state[k] for k in moving], [live[k] for k in moving], weight)
        for key in live.keys() - set(moving):
            self.state[key].copy_(live[key])

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a stored average."""
        for key, value in self.state.items():
            value.copy_(state[key])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module with the averaged weights, for the length of a with-block."""
        live = {k: v.detach().clone() for k, v in self._module.state_dict().items()}
        self._module.load_state_dict(self.state)
        try:
            yield
        finally:
            self._module.load_state_dict(live)

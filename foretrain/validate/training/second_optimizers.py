"""Optimizer rules over the arrays of any framework: written plainly, so that each framework fuses them as it does its users' own code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class Rule(ABC):
    """How one parameter moves. `slots` is how many arrays of its shape are kept between steps."""

    slots: int

    @abstractmethod
    def moved(self, parameter: Any, gradient: Any, kept: Sequence[Any], step: Any) -> tuple[Any, tuple[Any, ...]]:
        """Return the parameter and what is kept of it after step number `step`, counted from 1.

        `parameter`, `gradient` and `kept` have one shape; `step` is a scalar of their framework, in fp32.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Sgd(Rule):
    """Plain gradient descent."""

    rate: float
    slots = 0

    def moved(self, parameter: Any, gradient: Any, kept: Sequence[Any], step: Any) -> tuple[Any, tuple[Any, ...]]:
        """Step down the gradient."""
        return parameter - self.rate * gradient, ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Momentum(Rule):
    """Heavy ball. **Source:** Sutskever et al., On the importance of initialization and momentum, ICML 2013; in torch.optim.SGD's form."""

    rate: float
    share: float
    slots = 1

    def moved(self, parameter: Any, gradient: Any, kept: Sequence[Any], step: Any) -> tuple[Any, tuple[Any, ...]]:
        """Step down the running sum of gradients."""
        velocity = self.share * kept[0] + gradient
        return parameter - self.rate * velocity, (velocity,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam(Rule):
    """Adam, or with `decay` AdamW.

    **Source:** Kingma and Ba, arXiv:1412.6980, algorithm 1; Loshchilov and Hutter, arXiv:1711.05101, algorithm 2.
    """

    rate: float
    beta1: float
    beta2: float
    epsilon: float
    decay: float
    slots = 2

    def moved(self, parameter: Any, gradient: Any, kept: Sequence[Any], step: Any) -> tuple[Any, tuple[Any, ...]]:
        """Step by the mean gradient over its root mean square, both free of the bias of their start."""
        first = self.beta1 * kept[0] + (1 - self.beta1) * gradient
        second = self.beta2 * kept[1] + (1 - self.beta2) * gradient * gradient
        mean, square = first / (1 - self.beta1**step), second / (1 - self.beta2**step)
        return parameter * (1 - self.rate * self.decay) - self.rate * mean / (square**0.5 + self.epsilon), (first, second)


RATE, ADAPTIVE_RATE = 1e-2, 1e-4
"""Small enough that a few steps on one batch do not diverge; the torch trainer's."""
RULES: dict[str, Rule] = {
    "sgd": Sgd(rate=RATE),
    "momentum": Momentum(rate=RATE, share=0.9),
    "adam": Adam(rate=ADAPTIVE_RATE, beta1=0.9, beta2=0.999, epsilon=1e-8, decay=0.0),
    "adamw": Adam(rate=ADAPTIVE_RATE, beta1=0.9, beta2=0.999, epsilon=1e-8, decay=0.01),
}
"""Rules by the names of recipes, with the constants that torch.optim has by default."""
CLIP_NORM = 1.0
"""Norm of all gradients above which they are scaled down, where a recipe clips."""

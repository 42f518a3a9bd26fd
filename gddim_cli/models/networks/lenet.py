"""A small classifier of 28x28 digits, whose last hidden layer provides features for distances between sets of digits.

It is the network of LeCun et al., *Gradient-based learning applied to document recognition* (1998), with ReLU and max
pooling.
"""

from __future__ import annotations

from torch import Tensor, nn


class LeNet(nn.Module):
    """Maps digits to 84 features and to class scores.

    `features` applies tanh to the last hidden layer. Since tanh is bounded, a few odd images do not dominate the
    covariance.
    """

    dimension = 84

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(800, 120),
            nn.ReLU(),
            nn.Linear(120, self.dimension),
        )
        self.head = nn.Linear(self.dimension, 10)

    def features(self, x: Tensor) -> Tensor:
        """Features [N, 84] in (-1, 1) of images [N, 1, 28, 28] in [-1, 1]."""
        return self.body(x).tanh()

    def forward(self, x: Tensor) -> Tensor:
        """Class scores, [N, 10], of images [N, 1, 28, 28] in [-1, 1]."""
        return self.head(nn.functional.relu(self.body(x)))

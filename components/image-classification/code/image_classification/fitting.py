"""Fits a network to a training set. The fitting has a seed, can stop early, and ends with the best weights.

The training tool calls it.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor, nn

from bonseyes_dagster.errors import ToolError

__all__ = ["COST_FUNCTIONS", "Epoch", "Plan", "Samples", "Summary", "fit", "seed_everything", "select_device"]

COST_FUNCTIONS: dict[str, Callable[[], nn.Module]] = {
    "cross-entropy": nn.CrossEntropyLoss,
    "label-smoothing": lambda: nn.CrossEntropyLoss(label_smoothing=0.1),
}
_WEIGHT_DECAY = 1e-4
_VALIDATION_BATCH = 256
# One thread computes a step of fewer values faster than several threads, because several wait for each other.
_FEWEST_VALUES = 2**17
# More threads do not help networks of this size.
_MOST_THREADS = 4
# The limits of the random movement of a training sample in each epoch.
_MOST_RADIANS = math.radians(12)
_MOST_ZOOM = 0.1
_MOST_SHIFT = 0.08


@dataclass(frozen=True, slots=True)
class Samples:
    """Images (N, channels, height, width) float32 and class indexes (N,) int64. Both may be memory-mapped."""

    inputs: NDArray[np.float32]
    outputs: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.outputs)

    def take(self, rows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Copy these rows to the device. Return inputs and outputs."""
        inputs, outputs = np.asarray(self.inputs[rows]), np.asarray(self.outputs[rows])
        return torch.from_numpy(inputs).to(device), torch.from_numpy(outputs).to(device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The settings of the fitting. It stops early after `patience` epochs without a lower validation loss."""

    epochs: int
    learning_rate: float
    batch_size: int
    patience: int
    seed: int
    cost_function: str
    augment: bool


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training samples, numbered from 1."""

    number: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of the fitting."""

    best: Epoch
    epochs_run: int
    stopped_early: bool


def select_device(wanted: str) -> torch.device:
    """Return the device for `auto`, `cpu` or `cuda`. Raise ToolError when there is no GPU for `cuda`."""
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise ToolError("The device is `cuda`, but there is no usable GPU; choose `auto` or `cpu`.")
    return torch.device("cuda" if has_gpu and wanted != "cpu" else "cpu")


def seed_everything(seed: int) -> None:
    """Make this process compute the same numbers for the same seed, on a CPU and on a GPU."""
    # Without this, the results of cuBLAS may differ from run to run. cuBLAS reads it at its first use.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.manual_seed(seed)


def choose_threads(plan: Plan, samples: Samples) -> int:
    """Return the number of threads for torch that suits steps of this size."""
    values = plan.batch_size * math.prod(samples.inputs.shape[1:])
    return 1 if values < _FEWEST_VALUES else max(1, min(_MOST_THREADS, len(os.sched_getaffinity(0))))


def fit(
    network: nn.Module,
    train: Samples,
    validation: Samples,
    plan: Plan,
    device: torch.device,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Summary:
    """Fit the network in place. At the end it has its best weights and is in evaluation mode on the CPU.

    The optimizer is AdamW. The learning rate falls from `learning_rate` to 0 along half a cosine.

    Raises:
        ToolError: The loss of an epoch is not a finite number.
    """
    torch.set_num_threads(choose_threads(plan, train))
    network.to(device)
    cost = COST_FUNCTIONS[plan.cost_function]()
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.learning_rate, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.epochs)
    order = np.random.default_rng(plan.seed)
    best: Epoch | None = None
    best_weights: dict[str, Any] = {}
    number = 0
    while number < plan.epochs and (best is None or number - best.number < plan.patience):
        number += 1
        rate = float(optimizer.param_groups[0]["lr"])
        train_loss = _run_epoch(network, train, plan, device, cost, optimizer, order)
        epoch = Epoch(number, train_loss, *_validate(network, validation, device, cost), rate)
        _check(epoch)
        on_epoch(epoch)
        schedule.step()
        if best is None or epoch.validation_loss < best.validation_loss:
            best, best_weights = epoch, copy.deepcopy(network.state_dict())
    assert best is not None  # plan.epochs is at least 1
    network.load_state_dict(best_weights)
    network.to("cpu").eval()
    return Summary(best, number, number < plan.epochs)


def _run_epoch(
    network: nn.Module,
    samples: Samples,
    plan: Plan,
    device: torch.device,
    cost: nn.Module,
    optimizer: torch.optim.Optimizer,
    order: np.random.Generator,
) -> float:
    """Fit to all samples once. Return the mean of the losses before each step."""
    network.train()
    total, met = torch.zeros((), device=device), 0
    for rows in _batches(order.permutation(len(samples)), plan.batch_size):
        if len(rows) == 1 < len(samples):
            continue  # batch normalisation needs two samples; another epoch uses this sample
        inputs, outputs = samples.take(rows, device)
        if plan.augment:
            inputs = _move(inputs, order)
        optimizer.zero_grad(set_to_none=True)
        loss = cost(network(inputs), outputs)
        loss.backward()
        optimizer.step()
        # Sum on the device: a transfer at each step makes a GPU wait.
        total += loss.detach() * len(rows)
        met += len(rows)
    return float(total) / met


def _move(inputs: Tensor, random: np.random.Generator) -> Tensor:
    """Turn, zoom and shift each image a little. Repeat the pixels of the border beyond the edges."""
    turn, zoom, right, down = random.uniform(-1, 1, (4, len(inputs)))
    cosine, sine = np.cos(turn * _MOST_RADIANS), np.sin(turn * _MOST_RADIANS)
    factor = 1 + zoom * _MOST_ZOOM
    # Coordinates go from -1 to 1, so a side has the length 2.
    rows = [
        [factor * cosine, -factor * sine, right * 2 * _MOST_SHIFT],
        [factor * sine, factor * cosine, down * 2 * _MOST_SHIFT],
    ]
    matrices = torch.from_numpy(np.array(rows, np.float32).transpose(2, 0, 1).copy()).to(inputs.device)
    grid = functional.affine_grid(matrices, list(inputs.shape), align_corners=False)
    return functional.grid_sample(inputs, grid, padding_mode="border", align_corners=False)


@torch.inference_mode()
def _validate(network: nn.Module, samples: Samples, device: torch.device, cost: nn.Module) -> tuple[float, float]:
    """Return the mean loss and the accuracy."""
    network.eval()
    loss, right = 0.0, 0
    for rows in _batches(np.arange(len(samples)), _VALIDATION_BATCH):
        inputs, outputs = samples.take(rows, device)
        scores = network(inputs)
        loss += float(cost(scores, outputs)) * len(rows)
        right += int((scores.argmax(1) == outputs).sum())
    return loss / len(samples), right / len(samples)


def _batches(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), size):
        # Sorted: a memory-mapped file is then read from start to end.
        yield np.sort(rows[start : start + size])


def _check(epoch: Epoch) -> None:
    if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.validation_loss)):
        raise ToolError(
            f"The training diverged in epoch {epoch.number}: the loss is not a finite number;"
            " choose a smaller learning-rate."
        )

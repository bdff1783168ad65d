"""Fits a network to a training set: seeded, stopping early, ending with the best weights it had."""

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
# A step smaller than this is done sooner by one thread than by several that wait for each other; more than some threads
# never help networks of this size.
_FEWEST_VALUES = 2**17
_MOST_THREADS = 4
# How far a training sample is moved, at most, each time it is met.
_MOST_RADIANS = math.radians(12)
_MOST_ZOOM = 0.1
_MOST_SHIFT = 0.08


@dataclass(frozen=True, slots=True)
class Samples:
    """Images (N, channels, height, width) float32 and class indexes (N,) int64; either may be memory-mapped."""

    inputs: NDArray[np.float32]
    outputs: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.outputs)

    def take(self, rows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return some rows on the device."""
        inputs, outputs = np.asarray(self.inputs[rows]), np.asarray(self.outputs[rows])
        return torch.from_numpy(inputs).to(device), torch.from_numpy(outputs).to(device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to fit; `patience` is the number of epochs without a lower validation loss that end the fitting."""

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
    """How the fitting went."""

    best: Epoch
    epochs_run: int
    stopped_early: bool


def select_device(wanted: str) -> torch.device:
    """Return the device for `auto`, `cpu` or `cuda`; ToolError when there is no GPU for `cuda`."""
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise ToolError("device is `cuda`, but no GPU can be used here; choose `auto` or `cpu`.")
    return torch.device("cuda" if has_gpu and wanted != "cpu" else "cpu")


def seed_everything(seed: int) -> None:
    """Make this process compute the same numbers for the same seed, on a CPU and on a GPU."""
    # cuBLAS reads it when it is first used; without it its results may differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.manual_seed(seed)


def choose_threads(plan: Plan, samples: Samples) -> int:
    """Return how many threads torch should use for steps of this size."""
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
    """Fit the network in place; it ends with its best weights, in evaluation mode, on the CPU.

    AdamW under half a cosine from `learning_rate` down to nothing. ToolError when the loss is no number any more.
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
    assert best is not None  # plan.epochs is 1 at least
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
    """Return the mean loss of the samples, as they were met."""
    network.train()
    total, met = torch.zeros((), device=device), 0
    for rows in _batches(order.permutation(len(samples)), plan.batch_size):
        if len(rows) == 1 < len(samples):
            continue  # one sample has no variance to normalise by; it has its turn in another epoch
        inputs, outputs = samples.take(rows, device)
        if plan.augment:
            inputs = _move(inputs, order)
        optimizer.zero_grad(set_to_none=True)
        loss = cost(network(inputs), outputs)
        loss.backward()
        optimizer.step()
        # Summed on the device: asking for the number at each step would make a GPU wait.
        total += loss.detach() * len(rows)
        met += len(rows)
    return float(total) / met


def _move(inputs: Tensor, random: np.random.Generator) -> Tensor:
    """Turn, zoom and shift each image by a little; what comes in at an edge continues what was there."""
    turn, zoom, right, down = random.uniform(-1, 1, (4, len(inputs)))
    cosine, sine = np.cos(turn * _MOST_RADIANS), np.sin(turn * _MOST_RADIANS)
    factor = 1 + zoom * _MOST_ZOOM
    # Places are given from -1 to 1, so a side is 2 long.
    rows = [
        [factor * cosine, -factor * sine, right * 2 * _MOST_SHIFT],
        [factor * sine, factor * cosine, down * 2 * _MOST_SHIFT],
    ]
    matrices = torch.from_numpy(np.array(rows, np.float32).transpose(2, 0, 1).copy()).to(inputs.device)
    grid = functional.affine_grid(matrices, list(inputs.shape), align_corners=False)
    return functional.grid_sample(inputs, grid, padding_mode="border", align_corners=False)


@torch.inference_mode()
def _validate(network: nn.Module, samples: Samples, device: torch.device, cost: nn.Module) -> tuple[float, float]:
    """Return the mean loss and the share of samples that are classified rightly."""
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
        # Sorted: a memory-mapped file is read forwards.
        yield np.sort(rows[start : start + size])


def _check(epoch: Epoch) -> None:
    if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.validation_loss)):
        raise ToolError(
            f"The training diverged in epoch {epoch.number}: the loss is no finite number any more."
            " A smaller learning-rate helps."
        )

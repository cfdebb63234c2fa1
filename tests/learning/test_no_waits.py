"""Training by torch's operations on a GPU, without one: an epoch is queued as a whole, and read once at its end."""

from collections.abc import Callable

import ase.io
import pytest
import torch

from bdqm_tune.config.config import Config, Training
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.learning import torch_epochs
from bdqm_tune.learning.batches import SplitTensors, batch_sizes, split_tensors
from bdqm_tune.learning.dataset import Dataset, prepare
from bdqm_tune.learning.memory_budget import MemoryBudget
from bdqm_tune.learning.torch_epochs import TorchEpochs
from tests.learning.waiting import META, NoWaits, WaitsForDevice
from tests.strained_alloys import strained_alloys

LABELS = {"energies": (False, False), "forces": (True, False), "forces and stress": (True, True)}


@pytest.fixture(scope="module")
def data(config_for: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Of its structures some have no stress."""
    images = strained_alloys(16)
    for i in (0, 3):
        del images[i].calc.results["stress"]
    folder = tmp_path_factory.mktemp("labels")
    ase.io.write(folder / "train.traj", images)
    training = {"forces": True, "stress": "partial"}
    return prepare(config_for(folder / "train.traj", training=training), folder / "home")


@pytest.fixture(autouse=True)
def _unfused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch has no fused optimizer for that device; on a GPU the fused one is a kernel for all weights."""

    def adam(parameters: object, hyperparameters: Hyperparameters) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=hyperparameters.lr)  # type: ignore[arg-type]

    monkeypatch.setattr(torch_epochs, "make_optimizer", adam)


def splits(data: Dataset, labels: str, room: MemoryBudget | None = None) -> list[SplitTensors]:
    forces, stress = LABELS[labels]
    return [split_tensors(data, s, META, torch.float32, forces, room, stress) for s in (data.train, data.validation)]


def epochs_of(parts: list[SplitTensors], **options: object) -> TorchEpochs:
    hyperparameters = Hyperparameters.model_validate({"num_nodes": 6, "batch_size": 4, **options})
    return TorchEpochs(hyperparameters, Training(), *parts, seed=0, scale=1.0)


@pytest.mark.parametrize("options", [{}, {"batchnorm": True, "dropout": True}])
@pytest.mark.parametrize("labels", LABELS)
def test_an_epoch_waits_for_its_sums_alone(data: Dataset, labels: str, options: dict[str, object]) -> None:
    parts = splits(data, labels)
    epochs, sizes, steps = epochs_of(parts, **options), batch_sizes(len(parts[0]), 4), list[int]()
    epochs.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    with NoWaits(), pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):  # reads the sums
        epochs.train(torch.randperm(len(parts[0])), sizes)
    assert len(steps) == len(sizes) > 2


@pytest.mark.parametrize("labels", LABELS)
def test_a_validation_waits_for_its_sums_alone(data: Dataset, labels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, predicted = splits(data, labels), list[torch_epochs.Predicted]()
    epochs, predict = epochs_of(parts), torch_epochs.predict_batch

    def seen(*arguments: object, train: bool) -> torch_epochs.Predicted:
        predicted.append(predict(*arguments, train=train))  # type: ignore[arg-type]
        return predicted[-1]

    monkeypatch.setattr(torch_epochs, "predict_batch", seen)
    with NoWaits(), pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        epochs.validate()
    assert sum(len(each.energies) for each in predicted) == len(data.validation.structures)


def test_batches_from_the_disk_wait_for_nothing_either(data: Dataset) -> None:
    part, _ = splits(data, "forces and stress", MemoryBudget(0))
    assert not part.loaded
    with NoWaits():
        batches = list(part.in_batches(torch.randperm(len(part)), 4))
    assert sum(len(batch.targets) for batch in batches) == len(part)


def test_the_check_sees_what_would_wait() -> None:
    values, numbers = torch.zeros(4, device=META), torch.ones(4, dtype=torch.int64, device=META)
    waits: list[Callable[[], object]] = [
        lambda: values.sum().item(),
        lambda: values.tolist(),
        lambda: values.cpu(),
        lambda: values.numpy(),
        lambda: bool(values.sum() > 0),
        lambda: values[values > 0],
        lambda: values + torch.zeros(4),
        lambda: torch.repeat_interleave(numbers),
        lambda: torch.zeros(4).index_add(0, numbers, values),
    ]
    for wait in waits:
        with NoWaits(), pytest.raises((RuntimeError, TypeError)):
            wait()
    copies: list[Callable[[], object]] = [
        lambda: values[torch.zeros(2, dtype=torch.int64)],
        lambda: values[[0, 1]],
        lambda: torch.tensor([1, 2], device=META),
        lambda: torch.zeros(4).to(META),
        lambda: values.copy_(torch.zeros(4)),
    ]
    for copy in copies:
        with NoWaits(), pytest.raises(WaitsForDevice):
            copy()
    with NoWaits():
        values[1:3], values[numbers], torch.zeros(4).to(META, non_blocking=True)


def test_a_list_in_the_step_fails_the_test_of_the_step(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an error that is read in each batch would."""
    errors = TorchEpochs._errors

    def reads(self: TorchEpochs, *arguments: object) -> list[torch.Tensor]:
        found = errors(self, *arguments)  # type: ignore[arg-type]
        found[0].tolist()
        return found

    monkeypatch.setattr(TorchEpochs, "_errors", reads)
    with pytest.raises(AssertionError):
        test_an_epoch_waits_for_its_sums_alone(data, "forces", {})

"""The published amptorch: its descriptors, networks and loss, trained by its `AtomsTrainer`."""

import io
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

import torch
from ase.data import atomic_numbers, chemical_symbols

from bdqm_tune.backends.amptorch_adapters import amptorchs_globals, import_amptorch
from bdqm_tune.backends.amptorch_inputs import Images, split_images
from bdqm_tune.backends.native import DTYPES
from bdqm_tune.config.config import Config
from bdqm_tune.config.hyperparameters import Hyperparameters, left_out
from bdqm_tune.config.spaces import DESCRIPTOR
from bdqm_tune.descriptors.amptorch_faults import wrong_without_derivatives
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.dataset import Dataset
from bdqm_tune.learning.fit import BestEpoch, Checkpoint, EpochRecord
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import ACTIVATIONS, AtomicNetwork, make_network
from bdqm_tune.learning.optimisation import make_optimizer, make_schedule
from bdqm_tune.learning.plain_network import check_plain
from bdqm_tune.progress import note

NAMED = 20  # images that a message names, at most
# The hyperparameters that a training here follows; another is refused where it is not at its default.
KNOWN = {
    *("num_layers", "num_nodes", "hidden_layers", "network", "activation", "batchnorm", "dropout", "dropout_rate"),
    *("initialization", "optimizer", "weight_decay", "lr", "batch_size", "scheduler", "gamma", "step_size"),
    "force_coefficient",
}


class AmptorchRun:
    """One training by an `AtomsTrainer`, an epoch of its loop at a time, so that the caller can stop it.

    It starts from the same weights as the native backend with this seed.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        train: Images,
        validation: Images,
        hyperparameters: Hyperparameters,
        seed: int,
    ) -> None:
        from skorch.callbacks import LRScheduler

        from bdqm_tune.backends.amptorch_errors import EpochErrors

        self._config, self._dataset, self._hyperparameters, self._train = config, dataset, hyperparameters, train
        self._dtype = DTYPES[config.training.precision]
        numbers = sorted({atomic_numbers[symbol] for symbol in dataset.train.structures.elements})
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = make_network(dataset.descriptor.n_features, hyperparameters, numbers)
        check_plain(network, dataset.descriptor.n_features, hyperparameters)  # amptorch trains one that it makes itself
        self._network = network.to(self._dtype)
        self._errors = EpochErrors(config.objective)
        with amptorchs_globals(self._dtype), redirect_stdout(io.StringIO()):  # it prints what it does
            trainer = import_amptorch().AtomsTrainer(trainer_config(config, hyperparameters, seed))
            trainer.elements = [chemical_symbols[z] for z in numbers]
            trainer.input_dim = dataset.descriptor.n_features
            trainer.load(load_dataset=False)
            self._net = trainer.net
            schedule = [callback for callback in trainer.callbacks if isinstance(callback, LRScheduler)]
            self._net.set_params(
                callbacks=[self._errors, *schedule],
                train_split=lambda train: (train, validation),
                iterator_train__pin_memory=False,
                iterator_valid__pin_memory=False,
            )
            _put_weights(self._net.module, network)
            self._net.initialize()
            self._net.notify("on_train_begin", X=train, y=None)
            self._random_state = torch.get_rng_state()
        self.n_parameters = network.n_parameters
        self.records: list[EpochRecord] = []
        self.key: dict[str, Any] = {}
        self._best = BestEpoch(config.training, config.objective, hyperparameters.scheduler)

    @property
    def best(self) -> EpochRecord | None:
        return self._best.record

    def __iter__(self) -> Iterator[EpochRecord]:
        for epoch in range(1, self._config.training.epochs + 1):
            record = self._train_epoch(epoch)
            if self._best.improves(record):
                _take_weights(self._network, self._net.module_)
            self.records.append(record)
            yield record
            if self._best.is_over(epoch):
                return

    def checkpoint(self) -> None:
        """None: its state is spread over objects of skorch and amptorch."""

    def restore(self, checkpoint: Checkpoint) -> None:
        raise NotImplementedError("backend amptorch: a training cannot resume from a checkpoint")

    def potential(self) -> NetworkPotential:
        """The model of the best epoch so far, with the descriptor of the dataset, which gives the same features."""
        network = make_network(self._dataset.descriptor.n_features, self._hyperparameters, self._network.elements).to(
            self._dtype
        )
        network.load_state_dict(self._network.state_dict())
        return NetworkPotential.from_dataset(self._dataset, self._hyperparameters, network)

    def held_out(self) -> None:
        """None: amptorch's loop gives the errors of batches."""

    def _train_epoch(self, epoch: int) -> EpochRecord:
        start, lr = time.perf_counter(), float(self._net.optimizer_.param_groups[0]["lr"])
        with amptorchs_globals(self._dtype):
            torch.set_rng_state(self._random_state)
            # Not `partial_fit`, which takes an interrupt for the end of the training.
            self._net.fit_loop(self._train, epochs=1)
            self._random_state = torch.get_rng_state()
        scale, mean, forces = self._dataset.scale, self._errors.mean, self._config.training.forces
        return EpochRecord(
            epoch=epoch,
            train_loss=2 * mean("loss", True),  # amptorch's is half of the sum of energy and forces
            train_energy_mae=scale * mean("energy", True),
            val_energy_mae=scale * mean("energy", False),
            val_energy_mae_per_atom=scale * mean("energy_per_atom", False),
            lr=lr,
            epoch_seconds=time.perf_counter() - start,
            train_forces_mae=scale * mean("forces", True) if forces else None,
            val_forces_mae=scale * mean("forces", False) if forces else None,
        )


class AmptorchBackend:
    """Holds both splits as amptorch's data, once for all trials."""

    device, at_once = "cpu", 1

    def __init__(self, config: Config, dataset: Dataset) -> None:
        """
        Raises:
            BadInput: amptorch is not installed, a GPU is requested, the descriptor is searched, or amptorch's
                descriptors do not support the configuration.
        """
        if config.descriptor_spaces:
            searched = ", ".join(f"search.{DESCRIPTOR}{option}" for option in config.descriptor_spaces)
            raise BadInput(
                f"backend amptorch: computes its own features, for one descriptor; fix {searched}, or use "
                "--backend native"
            )
        if config.device not in ("auto", "cpu"):
            raise BadInput(f"device {config.device}: backend amptorch trains on the CPU only; use --device cpu or auto")
        import_amptorch()
        # The layers are so narrow that a second core saves little even on an idle machine, while waiting for it on a
        # shared one makes an epoch many times longer.
        torch.set_num_threads(1)
        self._config, self._dataset = config, dataset
        dtype, forces = DTYPES[config.training.precision], config.training.forces
        own = config.amptorch_features == "own"
        self._train, self._validation = (
            split_images(dataset, split, dtype, bool(forces), own) for split in (dataset.train, dataset.validation)
        )
        for remark in _remarks(config, dataset, sorted(self._train.differing + self._validation.differing)):
            note(f"bdqm-tune: {remark}")

    def start(self, hyperparameters: Hyperparameters, seed: int, dataset: Dataset | None = None) -> AmptorchRun:
        return AmptorchRun(self._config, self._dataset, self._train, self._validation, hyperparameters, seed)


def _remarks(config: Config, dataset: Dataset, differing: list[int]) -> list[str]:
    """What was done about features of amptorch that are not those of the descriptor.

    Args:
        differing: the images of which they are not, unless it is given a shifted copy.
    """
    remarks, own = [], config.amptorch_features == "own"
    wrong = "" if config.training.forces else wrong_without_derivatives(dataset.descriptor.settings)
    if wrong:
        done = "taken as they are" if own else "computed with derivatives, where they are right"
        remarks.append(f"without derivatives, amptorch's features of {wrong} are wrong; they are {done}")
    if differing:
        total = len(dataset.train.structures) + len(dataset.validation.structures)
        named = ", ".join(str(i) for i in differing[:NAMED]) + (", …" if len(differing) > NAMED else "")
        images = f"{len(differing)} of {total} structures of {dataset.train.structures.source} (images {named})"
        if own:
            remarks.append(
                f"amptorch's features of {images} are not those of the descriptor, and taken as they are; the model "
                "that comes out predicts with those of the descriptor"
            )
        else:
            remarks.append(
                f"amptorch is given shifted copies of {images}: in these as they are, its neighbour search loses atoms "
                "or does not work; the features of the copies are those of the descriptor"
            )
    return remarks


def trainer_config(config: Config, hyperparameters: Hyperparameters, seed: int) -> dict[str, Any]:
    """The configuration of an `AtomsTrainer`. Optimizer and schedule are torch's own there, too.

    Raises:
        BadInput: a hyperparameter that it cannot express has another value than its default.
    """
    if others := left_out(hyperparameters, KNOWN):
        named = ", ".join(f"{name}={value}" for name, value in others.items())
        raise BadInput(f"backend amptorch: it does not know {named}; leave these at their defaults, or use native")
    if config.training.loss == "huber":
        raise BadInput("backend amptorch: training.loss must be mae or mse, got huber")
    epochs, options = config.training.epochs, hyperparameters
    return {
        "model": {
            "name": {"single": "singlenn", "per_element": "bpnn"}[options.network],
            "hidden_layers": options.layers,
            "get_forces": config.training.forces,
            "batchnorm": options.batchnorm,
            "dropout": options.dropout,
            "dropout_rate": options.dropout_rate,
            "activation": ACTIVATIONS[options.activation],
        },
        "optim": {
            "optimizer": lambda parameters, lr: make_optimizer(parameters, options),
            "lr": options.lr,
            "scheduler": {
                "policy": lambda optimizer, last_epoch: make_schedule(optimizer, options, epochs),
                "params": {"monitor": "objective"},
            },
            "batch_size": options.batch_size,
            "epochs": epochs,
            "loss": config.training.loss,
            "force_coefficient": options.force_coefficient,
        },
        "dataset": {"val_split": 0},  # it is given the validation split itself
        "cmd": {
            "debug": True,  # no files
            "verbose": False,
            "seed": seed,
            "dtype": {"float32": torch.FloatTensor, "float64": torch.DoubleTensor}[config.training.precision],
        },
    }


def _put_weights(module: Any, network: AtomicNetwork) -> None:
    """Give amptorch's network the weights of ours."""
    weights = {_amptorchs_name(name, network): value for name, value in network.state_dict().items()}
    module.load_state_dict(module.state_dict() | weights)
    if network.elements:
        # The mask that selects the network of an atom would be trained there: in the end all would have a share in it.
        module.element_mask.requires_grad_(False)


def _take_weights(network: AtomicNetwork, module: Any) -> None:
    """Give our network the weights of amptorch's."""
    weights = module.state_dict()
    network.load_state_dict({name: weights[_amptorchs_name(name, network)] for name in network.state_dict()})


def _amptorchs_name(name: str, network: AtomicNetwork) -> str:
    """What amptorch calls a weight of our network; the layers are numbered alike."""
    if not network.elements:
        return f"model.model_net.{name}"
    _, symbol, rest = name.split(".", 2)
    return f"elementwise_models.{network.elements.index(atomic_numbers[symbol])}.model_net.{rest}"

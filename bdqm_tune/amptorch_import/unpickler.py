"""Unpickles data and nothing else: the names that a pickle may use are in a list, and none is imported or called."""

import pickle  # nosec B403  # for its Unpickler, with a find_class of ours that imports nothing
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from bdqm_tune.errors import BadInput, one_line

STORAGES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}
TENSOR = "torch._utils._rebuild_tensor_v2"
ARRAYS = {"numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct"}
SCALARS = {"numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar"}
ARRAY_CLASS, DTYPE, BYTES = "numpy.ndarray", "numpy.dtype", "_codecs.encode"
SCALERS = {"amptorch.preprocessing.utils.FeatureScaler", "amptorch.preprocessing.utils.TargetScaler"}

_ACTIVATIONS = (
    "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish PReLU RReLU ReLU ReLU6 SELU "
    "SiLU Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink Threshold"
)
_OPTIMIZERS = "Adadelta Adagrad Adam AdamW Adamax LBFGS NAdam RAdam RMSprop Rprop SGD SparseAdam"
# Classes that a configuration names: an activation, and by the keys optimizer, dtype and loss_fn these others. Nothing
# is known of them here but the name.
NAMES = {
    *(f"torch.nn.modules.activation.{name}" for name in _ACTIVATIONS.split()),
    *(f"torch.optim.{name.lower()}.{name}" for name in _OPTIMIZERS.split()),
    "torch.optim.sparse_adam.SparseAdam",
    *(f"torch.{kind}Tensor" for kind in ("Double", "Float", "Half")),
    "amptorch.model.CustomLoss",
}


class Record:
    """In the place of an object of a pickle: its class, arguments and state."""

    name = ""

    def __new__(cls, *args: Any) -> "Record":
        made = object.__new__(cls)
        made.args, made.state = args, None
        return made

    args: tuple[Any, ...]
    state: Any

    # Found by the unpickler in the place of its default, which would set attributes of any name.
    def __setstate__(self, state: Any) -> None:
        self.state = state


class PlainDict(dict[Any, Any]):
    """For `collections.OrderedDict`; attributes that torch hangs on one are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class PlainSet(set[Any]):
    """For a set."""

    def __setstate__(self, state: Any) -> None:
        pass


class Storage(NamedTuple):
    """Numbers that lie outside the pickle, in the same file."""

    dtype: str  # numpy's name
    key: str
    size: int  # numbers


ADMITTED: dict[str, type] = {
    "collections.OrderedDict": PlainDict,
    "builtins.set": PlainSet,
    "builtins.frozenset": PlainSet,
    **dict.fromkeys(
        [*STORAGES, TENSOR, *ARRAYS, *SCALARS, ARRAY_CLASS, DTYPE, BYTES, *SCALERS, *NAMES],
        Record,
    ),
}


class Unpickler(pickle.Unpickler):
    """Gives plain containers with `Record`s in them, or `Record` classes where only a class is named."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        super().__init__(stream)
        self.path = path
        self.storages: dict[str, Storage] = {}
        self._classes: dict[str, type] = {}

    def find_class(self, module_name: str, global_name: str) -> type:
        name = f"{'builtins' if module_name == '__builtin__' else module_name}.{global_name}"
        if name not in ADMITTED:
            raise BadInput(
                f"{self.path}: refused, for it names {name}; a checkpoint of amptorch holds tensors, numpy arrays and "
                "numbers, plain containers, amptorch's two scalers, and names of torch's classes. Nothing of it was run"
            )
        # Classes of this one load: whatever a pickle does to them, the next load has its own.
        return self._classes.setdefault(name, type(global_name, (ADMITTED[name],), {"name": name}))

    def persistent_load(self, pid: Any) -> Storage | type:
        match pid:
            # Before version 1.6 torch wrote the source of a class beside its name.
            case ("module", type() as named, *_) if getattr(named, "name", "") in NAMES:
                return named
            case ("storage", type() as named, str(key), str(), int(size), *view) if size >= 0 and not any(view):
                if (kind := getattr(named, "name", "")) in STORAGES:
                    return self.storages.setdefault(key, Storage(STORAGES[kind], key, size))
        raise BadInput(f"{self.path}: holds a tensor in a form that is not known here")

    def read(self) -> Any:
        """The next object of the file.

        Raises:
            BadInput: it names what is not admitted, or is damaged.
        """
        try:
            return self.load()
        except BadInput:
            raise
        # A damaged pickle raises nearly anything.
        except Exception as error:
            raise BadInput(f"{self.path}: not a pickle that can be read ({one_line(error)})") from None

"""Reads files of `torch.save` as plain values and numpy arrays, without torch and without running any of their code."""

import io
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from bdqm_tune.amptorch_import import unpickler as names
from bdqm_tune.amptorch_import.unpickler import Record, Storage, Unpickler
from bdqm_tune.errors import BadInput, one_line

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file that torch before 1.6 wrote
# Numbers, truth values and text; none that holds objects or other types.
ADMITTED_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|[SU][1-9][0-9]{0,3}")


@dataclass(frozen=True)
class Object:
    """One of amptorch's scalers."""

    name: str
    attributes: dict[str, Any]


def read_torch_file(path: Path) -> Any:
    """The content of a `.pt` file: containers, numbers, text, arrays for tensors, `Object`s, and names of classes.

    Raises:
        BadInput: the file cannot be read, is damaged, or holds anything else, which is named.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    try:
        tree, storages = _read_zip(content, path) if content[:2] == b"PK" else _read_legacy(content, path)
        return _Resolver(path, storages).plain(tree)
    except BadInput:
        raise
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError, RecursionError) as error:
        raise BadInput(f"{path}: damaged ({one_line(error)})") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, MemoryError, struct.error, EOFError) as error:
        raise BadInput(f"{path}: not a file of torch that can be read ({one_line(error)})") from None


def _read_zip(content: bytes, path: Path) -> tuple[Any, dict[str, NDArray[Any]]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise BadInput(f"{path}: not a file that torch.save wrote (no data.pkl in it)")
        root = pickles[0].removesuffix("data.pkl")
        # torch compresses nothing; a small file must not become a huge one here.
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise BadInput(f"{path}: not a file that torch.save wrote (compressed)")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
            raise BadInput(f"{path}: written on a big-endian machine, which is not supported")
        unpickler = Unpickler(io.BytesIO(archive.read(pickles[0])), path)
        tree = unpickler.read()
        storages = {
            key: np.frombuffer(archive.read(f"{root}data/{key}"), dtype=storage.dtype)
            for key, storage in unpickler.storages.items()
        }
    return tree, storages


def _read_legacy(content: bytes, path: Path) -> tuple[Any, dict[str, NDArray[Any]]]:
    stream = io.BytesIO(content)
    if Unpickler(stream, path).read() != LEGACY_MAGIC:
        raise BadInput(f"{path}: not a file that torch.save wrote")
    _protocol, system = Unpickler(stream, path).read(), Unpickler(stream, path).read()
    if not isinstance(system, dict) or not system.get("little_endian"):
        raise BadInput(f"{path}: written on a big-endian machine, which is not supported")
    unpickler = Unpickler(stream, path)
    tree, storages = unpickler.read(), {}
    for key in Unpickler(stream, path).read():
        dtype = np.dtype(unpickler.storages[key].dtype)
        (size,) = struct.unpack("<q", stream.read(8))
        storages[key] = np.frombuffer(stream.read(size * dtype.itemsize), dtype=dtype)
    return tree, storages


class _Resolver:
    """Converts the output of the unpickler to plain values."""

    def __init__(self, path: Path, storages: dict[str, NDArray[Any]]) -> None:
        self.path, self.storages = path, storages
        # By identity, with the value so that it lives on: an object that occurs often is converted once.
        self.done: dict[int, tuple[Any, Any]] = {}

    def plain(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return value
        if id(value) not in self.done:
            self.done[id(value)] = (value, self._converted(value))
        return self.done[id(value)][1]

    def _converted(self, value: Any) -> Any:
        match value:
            case dict():
                return {self.plain(key): self.plain(entry) for key, entry in dict.items(value)}
            case list():
                return [self.plain(entry) for entry in value]
            case Storage():
                raise BadInput(f"{self.path}: holds a storage outside a tensor")
            case tuple():
                return tuple(self.plain(entry) for entry in value)
            case set() | frozenset():
                return {self.plain(entry) for entry in value}
            case Record():
                return self._object(value)
            case type() if (name := getattr(value, "name", "")) in names.NAMES:
                return name
        raise BadInput(f"{self.path}: holds {getattr(value, 'name', type(value).__name__)} where a value is expected")

    def _object(self, record: Record) -> Any:
        if record.name == names.TENSOR:
            return self._tensor(*record.args[:4])
        if record.name in names.ARRAYS:
            _version, shape, dtype, fortran, raw = record.state
            values = np.frombuffer(self.plain(raw), dtype=self._dtype(dtype))
            return values.reshape(shape, order="F" if fortran else "C").copy()
        if record.name in names.SCALARS:
            dtype, raw = record.args
            return np.frombuffer(self.plain(raw), dtype=self._dtype(dtype), count=1).item(0)
        if record.name == names.BYTES:
            text, encoding = record.args
            if encoding != "latin1":
                raise BadInput(f"{self.path}: holds bytes in the encoding {encoding!r}, and not latin1")
            return text.encode("latin1")
        if record.name in names.SCALERS:
            return Object(record.name.rpartition(".")[2], dict(self.plain(record.state)))
        raise BadInput(f"{self.path}: holds an object of {record.name}, of which only the name is admitted")

    def _dtype(self, record: Any) -> np.dtype[Any]:
        if not isinstance(record, Record) or record.name != names.DTYPE:
            raise BadInput(f"{self.path}: holds an array without a dtype")
        kind = record.args[0]
        if not isinstance(kind, str) or not ADMITTED_DTYPE.fullmatch(kind):
            raise BadInput(f"{self.path}: holds an array of dtype {kind!r}; admitted are numbers and text")
        order = record.state[1] if record.state else "="
        return np.dtype(order + kind if order in ("<", ">") else kind)

    def _tensor(self, storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> NDArray[Any]:
        if not isinstance(storage, Storage):
            raise BadInput(f"{self.path}: holds a tensor without its numbers")
        numbers = self.storages[storage.key]
        extents = (offset, *size, *stride)
        if len(size) != len(stride) or not all(type(number) is int and number >= 0 for number in extents):
            raise BadInput(f"{self.path}: holds a tensor of shape {size!r} that is none")
        count = int(np.prod(size, dtype=object))
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else -1
        if max(count, last + 1) > len(numbers):
            raise BadInput(f"{self.path}: holds a tensor of shape {size} with {len(numbers)} numbers only")
        if not count:
            return np.zeros(size, dtype=numbers.dtype)
        return as_strided(numbers[offset:], size, [step * numbers.itemsize for step in stride]).copy()

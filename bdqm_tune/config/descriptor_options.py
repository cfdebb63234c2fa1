"""What describes the neighbourhood of an atom: the options of every descriptor, declared once."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from bdqm_tune.config.descriptor_plugins import checked_options
from bdqm_tune.config.options import Options
from bdqm_tune.errors import BadInput
from bdqm_tune.plugins import plugin_names

LONGEST = 100.0  # Å; a typing error must not fill the memory with neighbours
# The options of each descriptor, besides those that all have.
_GMP = {"sigmas", "cutoff", "smooth_cutoff", "square", "pseudodensities"}
DESCRIPTORS: dict[str, set[str]] = {
    "gmp": {"orders", "solid", *_GMP},
    "gmp_groups": {"groups", *_GMP},
    "symmetry_functions": {
        "elements",
        "cutoff",
        "g2",
        "g4",
        "g5",
        "functions",
        "n_functions",
        "cutoff_function",
        "gamma",
    },
}
OWN = "options."  # before the name of an option that a descriptor of another package declares
# An option that counts only where another, which counts itself, has one of the given values.
CONDITIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{
        option: ("name", tuple(name for name, options in DESCRIPTORS.items() if option in options))
        for option in sorted(set().union(*DESCRIPTORS.values()))
    },
    "gamma": ("cutoff_function", ("polynomial",)),
    "scaling_range": ("scaling", ("normalise",)),
    "axis_floor": ("scaling", ("whiten",)),
    "logarithm": ("scaling", ("whiten",)),
}
# What an option was before it existed: records of that time, of studies and runs, do not have it.
BEFORE: dict[str, Any] = {"smooth_cutoff": False, "axis_floor": 1e-3}
# Defaults that changed: a study of the time before goes on with its own.
EARLIER_DEFAULTS: dict[str, Any] = {
    "scaling": "log",
    "orders": [0, 1, 2, 3],
    "sigmas": 8,
    "g2": {"etas": [0.05, 0.25, 1.0, 5.0], "rs": [0.0]},
    "g4": {"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [-1.0, 1.0]},
}
# The options that `DescriptorOptions` compares with each other.
DEPENDENT = ("name", "cutoff", "square", "scaling", "cutoff_function", "gamma")


def _with_text_keys(groups: dict[int, list[int]]) -> dict[str, list[int]]:
    # As JSON gives them back: a study compares its options with those that it was made with.
    return {str(order): numbers for order, numbers in groups.items()}


class DescriptorFields(Options):
    """The options of all descriptors, each checked for itself."""

    name: str = Field(
        "gmp",
        description="gmp: Gaussian multipoles, normalised per order; gmp_groups: single groups of their harmonics; "
        "symmetry_functions: Behler–Parrinello; or one of another package, see `bdqm-tune doctor`",
    )
    orders: list[Annotated[int, Field(ge=0, le=9)]] = Field([0, 1, 2, 3, 4, 5], min_length=1)
    groups: Annotated[dict[Annotated[int, Field(ge=0, le=9)], list[int]], PlainSerializer(_with_text_keys)] = Field(
        {0: [1], 1: [1], 2: [1, 2]}, min_length=1, description="order: numbers of its groups of harmonics, from 1"
    )
    sigmas: (
        Annotated[int, Field(ge=1, le=40)]
        | Annotated[list[Annotated[float, Field(gt=0, le=LONGEST)]], Field(min_length=1)]
    ) = Field(
        [0.2, 0.28, 0.39, 0.54, 0.75, 1.04, 1.44, 2.0],
        description="probe widths, Å; a number: as many from 0.1 to 2 Å, evenly spaced in their logarithm",
    )
    cutoff: float | None = Field(
        6.0, gt=0, le=LONGEST, description="Å; null: where the widest probe has decayed to 1e-8"
    )
    smooth_cutoff: bool = Field(
        True,
        description="neighbours count less towards the cutoff, so that energies and forces do not jump there; false: "
        "all count the same up to the cutoff, as in amptorch",
    )
    solid: bool = Field(True, description="solid harmonics, else surface harmonics")
    square: bool = Field(True, description="squared invariants, else their roots")
    pseudodensities: str | None = Field(None, description="folder of amptorch .g files; null: the package's table")
    elements: list[str] | None = Field(None, min_length=1, description="symbols; null: those of the training file")
    g2: dict[str, Any] | None = Field(
        None, description="lists etas and rs, all combinations; or such lists for each element"
    )
    g4: dict[str, Any] | None = Field(None, description="lists etas, zetas and gammas, as g2")
    g5: dict[str, Any] | None = Field(None, description="as g4, without the distance between the neighbours")
    functions: Literal["auto"] | dict[str, list[dict[str, Any]]] = Field(
        "auto",
        description="where none of g2, g4, g5 is given: auto, chosen for the training file; or one by one, for each "
        "element of the centre, in the place of cutoff",
    )
    n_functions: int = Field(32, ge=1, le=1000, description="functions: auto: of each element of the centre, at most")
    cutoff_function: Literal["cosine", "polynomial", "quintic", "tanh"] = "cosine"
    gamma: float | None = Field(None, gt=0, description="of the polynomial cutoff function, which needs it")
    scaling: Literal["whiten", "standardise", "normalise", "log"] = Field(
        "whiten",
        description="of the features, fitted on the training split; whiten: log(x + mean), or x where features are "
        "negative, uncorrelated, each of mean 0 and standard deviation 1; standardise: x to mean 0 and deviation 1; "
        "normalise: to scaling_range; log: log(x + mean / 1000), standardised",
    )
    logarithm: bool = Field(
        True, description="whiten: of features that are never negative; false, as n2p2 needs it: of none"
    )
    scaling_range: list[float] = Field(
        [0.0, 1.0], min_length=2, max_length=2, description="normalise: of a feature in the training split"
    )
    axis_floor: Literal["auto"] | Annotated[float, Field(gt=0, le=1)] = Field(
        "auto",
        description="whiten: least variance that a principal axis of the standardised features counts with, their mean "
        "being 1; smaller ones amplify what lies off the training split; auto: 0.001, up to 0.1 where atoms are few",
    )
    scaling_per_element: bool = Field(False, description="scale the atoms of each element for themselves")
    options: dict[str, Any] = Field(
        {}, validate_default=True, description="of a descriptor of another package, those that it declares"
    )

    @field_validator("name", mode="before")
    @classmethod
    def _one_there_is(cls, name: Any) -> Any:
        if isinstance(name, str) and name in DESCRIPTORS:
            return name
        known = [*DESCRIPTORS, *plugin_names("descriptor")]
        if name not in known:
            *first, last = map(repr, known)
            raise PydanticCustomError("unknown_name", "should be {known}", {"known": f"{', '.join(first)} or {last}"})
        return name

    @field_validator("options")
    @classmethod
    def _of_the_descriptor(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        name = info.data.get("name", "gmp")
        if name in DESCRIPTORS:
            return options  # which `DescriptorOptions` refuses
        try:
            return checked_options(name, options)
        except BadInput as error:
            raise ValueError(str(error)) from None

    @field_validator("scaling_range")
    @classmethod
    def _rising(cls, limits: list[float]) -> list[float]:
        if limits[0] >= limits[1]:
            raise ValueError(f"must be [low, high], got {limits}")
        return limits


class DescriptorOptions(DescriptorFields):
    """What describes the neighbourhood of an atom: options that fit each other."""

    @model_validator(mode="after")
    def _check_fitting(self) -> "DescriptorOptions":
        unfitting = [option for option in self.model_fields_set if option in self._unfitting]
        if unfitting:
            valid = ", ".join(option for option in type(self).model_fields if option not in self._unfitting)
            raise ValueError(f"{', '.join(sorted(unfitting))} does not belong to {self.name}; its options are: {valid}")
        if self.cutoff is None and self.name != "gmp":
            raise ValueError(f"cutoff: {self.name} needs a distance in Å")
        if (self.cutoff_function == "polynomial") != (self.gamma is not None):
            raise ValueError("gamma belongs to cutoff_function: polynomial, which needs it")
        if self.functions != "auto" and self.combines:
            raise ValueError("functions are given one by one, or as combinations by g2, g4 and g5; give one of these")
        if self.name == "gmp_groups" and not self.square and self.scaling == "log":
            raise ValueError("scaling: without square the features may be negative, so log is not for them")
        return self

    @model_serializer(mode="wrap")
    def _fitting_options(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {option: value for option, value in handler(self).items() if option not in self._unfitting}

    @property
    def combines(self) -> bool:
        """Whether symmetry functions are all combinations of lists."""
        return any(given is not None for given in (self.g2, self.g4, self.g5))

    @property
    def _unfitting(self) -> set[str]:
        """The options that only other descriptors have."""
        return {"options"}.union(*DESCRIPTORS.values()) - DESCRIPTORS.get(self.name, {"options"})


def conditions(option: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What has to have which value for an option to count, and what for that to count, and so on."""
    while option in CONDITIONS:
        option, needed = CONDITIONS[option]
        yield option, needed


def as_before(options: Mapping[str, Any], before: Mapping[str, Any] = BEFORE) -> dict[str, Any]:
    """The options without those that say what was so before they existed: equal to a record of that time.

    Args:
        before: what each option was before it existed.
    """
    return {option: value for option, value in options.items() if option not in before or value != before[option]}


def completed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a record with those that `as_before` left out, or that did not exist yet."""
    return {**{option: value for option, value in BEFORE.items() if counts(option, record)}, **record}


def counts(option: str, values: Mapping[str, Any]) -> bool:
    """Whether an option has a meaning beside these values of others; what is not given has its default."""
    defaults = DescriptorFields.model_fields
    if option == "options":
        return values.get("name", defaults["name"].default) not in DESCRIPTORS
    return all(values.get(parent, defaults[parent].default) in needed for parent, needed in conditions(option))

"""What all groups of options have in common, and how a hyperparameter is declared."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo


class Options(BaseModel):
    """A group of options; unknown keys are errors, values do not change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields.get(str(info.field_name))
        annotation = None if field is None else field.annotation
        if isinstance(value, bool) and {int, float} & {annotation, *get_args(annotation)}:
            raise ValueError("must be a number, not true or false")
        return value


Label = Literal["forces", "stress"]
Condition = tuple[str, tuple[Any, ...]]  # of a hyperparameter: another one, and the values with which it counts


def hyperparameter(
    default: Any,
    description: str = "",
    search: Any = None,
    only_where: Condition | None = None,
    weighs: Label | None = None,
    **limits: Any,
) -> Any:
    """A hyperparameter of a backend, as a field of its `Options`.

    Args:
        default: of the configuration that a study tries first.
        search: its entry of the default search space, as `{"float": [1e-3, 1e-2], "log": True}`; None: not searched.
        only_where: what another hyperparameter must be for this one to count, as `("optimizer", ("adamw",))`.
        weighs: it counts only where these labels are trained.
        limits: `gt`, `ge`, `lt`, `le`, `min_length`, … of pydantic's `Field`.

    Examples:
        >>> class Mine(Options):
        ...     lr: float = hyperparameter(1e-2, "learning rate", {"float": [1e-3, 1e-1], "log": True}, gt=0)
        >>> search_of(Mine)
        {'lr': {'float': [0.001, 0.1], 'log': True}}
    """
    declared = {"search": search, "only_where": only_where, "weighs": weighs}
    return Field(default, description=description or None, json_schema_extra=declared, **limits)


def search_of(hyperparameters: type[Options]) -> dict[str, Any]:
    """The default search space of a backend's hyperparameters."""
    return dict(_declared(hyperparameters, "search"))


def conditions_of(hyperparameters: type[Options]) -> dict[str, Condition]:
    """Under which condition a hyperparameter counts, of those that have one."""
    return dict(_declared(hyperparameters, "only_where"))


def weights_of(hyperparameters: type[Options]) -> dict[str, Label]:
    """The labels that have to be trained for a hyperparameter to count, of those that need some."""
    return dict(_declared(hyperparameters, "weighs"))


def takes_any(hyperparameters: type[Options]) -> bool:
    """Whether hyperparameters of any name are taken, besides those that are declared."""
    return hyperparameters.model_config.get("extra") == "allow"


def _declared(hyperparameters: type[Options], what: str) -> Iterator[tuple[str, Any]]:
    for name, field in hyperparameters.model_fields.items():
        if (value := _extra(field).get(what)) is not None:
            yield name, value


def _extra(field: FieldInfo) -> Mapping[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def with_training_option(content: Mapping[str, Any], option: str, value: Any) -> Mapping[str, Any]:
    """The content of a configuration with a value for an option of the training that it does not give."""
    given = content.get("training", {})
    given = given.model_dump(exclude_unset=True) if isinstance(given, BaseModel) else given
    if not isinstance(given, Mapping):
        return content  # which is refused later
    return content if option in given else {**content, "training": {**given, option: value}}

"""Features of structures by one descriptor, and their derivatives: computed or read when they are first asked for."""

from functools import cached_property
from pathlib import Path

from ase import Atoms

from bdqm_tune.config import Config
from bdqm_tune.descriptor_options import DescriptorOptions
from bdqm_tune.descriptor_search import examples, said
from bdqm_tune.descriptors import (
    StoredDerivatives,
    StoredFeatures,
    descriptor_from_options,
    stored_derivatives,
    stored_features,
)
from bdqm_tune.errors import BadInput
from bdqm_tune.structures import Structures


class Described:
    """Structures of all splits as a descriptor sees them."""

    def __init__(self, structures: Structures, options: DescriptorOptions, folder: Path, forces: bool) -> None:
        """
        Args:
            folder: the feature store.
            forces: with derivatives, to train on them.

        Raises:
            BadInput: options with which no descriptor can be made.
        """
        self.structures, self._folder, self._forces = structures, folder, forces
        self.descriptor = descriptor_from_options(options, structures.elements)

    def otherwise(self, options: DescriptorOptions) -> "Described":
        """The same structures by another descriptor."""
        return Described(self.structures, options, self._folder, self._forces)

    @cached_property
    def features(self) -> StoredFeatures:
        """(total atoms, n_features). Raises BadInput if the descriptor refuses a structure."""
        return stored_features(self.structures, self.descriptor, self._folder)

    @cached_property
    def derivatives(self) -> StoredDerivatives | None:
        """Of the features, where forces are trained. Raises BadInput as `features` does."""
        return stored_derivatives(self.structures, self.descriptor, self._folder) if self._forces else None


def check_searched_descriptors(config: Config, elements: list[str]) -> None:
    """See that every choice of the descriptor's options makes a descriptor that knows the elements.

    Raises:
        BadInput: one does not.
    """
    # Far from each other, and the others' pseudo-densities count nowhere.
    apart = Atoms(elements, positions=[[1000.0 * i, 0, 0] for i in range(len(elements))])
    tried: list[DescriptorOptions] = []
    for chosen, options in examples(config.descriptor, config.descriptor_spaces, over=("name",)):
        if options in tried:
            continue
        tried.append(options)
        try:
            descriptor_from_options(options, elements).compute(apart)
        except BadInput as error:
            raise BadInput(f"search: a trial could have {said(config.descriptor, chosen)}: {error}") from None

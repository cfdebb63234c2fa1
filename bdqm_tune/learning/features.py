"""Features of structures by one descriptor, and their derivatives: computed or read at their first use."""

from functools import cached_property
from pathlib import Path

from ase import Atoms

from bdqm_tune.config.config import Config
from bdqm_tune.config.descriptor_options import DescriptorOptions
from bdqm_tune.config.descriptor_search import examples, options_text
from bdqm_tune.descriptors import (
    StoredDerivatives,
    StoredFeatures,
    descriptor_from_options,
    stored_derivatives,
    stored_features,
    stored_strain_derivatives,
)
from bdqm_tune.errors import BadInput
from bdqm_tune.structures import Structures


class StructureFeatures:
    """The features of the structures of all splits by one descriptor."""

    def __init__(
        self,
        structures: Structures,
        options: DescriptorOptions,
        folder: Path,
        forces: bool,
        device: str = "auto",
        stress: bool = False,
    ) -> None:
        """
        Args:
            folder: the feature cache.
            forces: with derivatives, for training on forces.
            device: auto, cpu, cuda or cuda:N. A GPU that is named, and exists here, computes the features.
            stress: with derivatives by the strain, for training on the stress.

        Raises:
            BadInput: an option is outside its range.
        """
        self.structures, self._folder, self._device = structures, folder, device
        self._forces, self._stress = forces, stress
        self.descriptor = descriptor_from_options(options, structures.elements, structures.atoms)

    @property
    def cache(self) -> Path:
        """The folder of the feature cache."""
        return self._folder

    def with_options(
        self, options: DescriptorOptions, forces: bool = False, stress: bool = False
    ) -> "StructureFeatures":
        """The features of the same structures by another descriptor, with derivatives or without."""
        return StructureFeatures(self.structures, options, self._folder, forces, self._device, stress)

    @cached_property
    def features(self) -> StoredFeatures:
        """(total atoms, n_features). Raises BadInput if the descriptor refuses a structure."""
        # Not with auto: the compiled code is known to be fast, a GPU has not been measured.
        named = self._device.startswith("cuda") and _is_here(self._device)
        descriptor = self.descriptor.on(self._device) if named else self.descriptor
        return stored_features(self.structures, descriptor, self._folder)

    @cached_property
    def derivatives(self) -> StoredDerivatives | None:
        """Derivatives of the features by the positions, 1/Å; None without `forces`. Raises as `features`."""
        return stored_derivatives(self.structures, self.descriptor, self._folder) if self._forces else None

    @cached_property
    def strain_derivatives(self) -> StoredDerivatives | None:
        """Derivatives by the strain, of structures with a stress; None without `stress`. Raises as `features`."""
        return stored_strain_derivatives(self.structures, self.descriptor, self._folder) if self._stress else None


def _is_here(gpu: str) -> bool:
    import torch  # takes a second, and only this needs it

    return (torch.device(gpu).index or 0) < torch.cuda.device_count()


def check_searched_descriptors(config: Config, elements: list[str]) -> None:
    """Check that every choice of the descriptor's options gives a descriptor that knows the elements.

    Raises:
        BadInput: one does not; the message names the options.
    """
    # So far from each other that no atom has a neighbour.
    apart = Atoms(elements, positions=[[1000.0 * i, 0, 0] for i in range(len(elements))])
    tried: list[DescriptorOptions] = []
    for chosen, options in examples(config.descriptor, config.descriptor_spaces, over=("name",)):
        if options in tried:
            continue
        tried.append(options)
        try:
            descriptor_from_options(options, elements).compute(apart)
        except BadInput as error:
            raise BadInput(f"search: a trial could have {options_text(config.descriptor, chosen)}: {error}") from None

"""The tests; a package, as mace-torch installs one of the same name, which would be imported instead."""

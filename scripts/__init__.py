"""Scripts of the repository; a package for the tests, as mace-torch installs one of the same name."""

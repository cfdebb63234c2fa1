"""What every potential and every descriptor keeps to, for the tests of this package and of those that add some.

In: a model or a descriptor, and structures. Out: nothing; AssertionError says which law is broken, and by how much.
Called by: tests, here and in other packages. Each implementation is tested by the same laws.
"""

from bdqm_tune.testing.descriptors import check_descriptor
from bdqm_tune.testing.potentials import check_potential

__all__ = ["check_descriptor", "check_potential"]

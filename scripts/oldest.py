"""Print constraints that install the oldest versions of what the package needs, by the lower bounds in pyproject.toml.

python scripts/oldest.py > oldest.txt; make setup VENV=.oldest CONSTRAINTS=oldest.txt

What those need in turn, and what development needs, is as new as it may be.
"""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
BOUND = re.compile(r"^(?P<name>[\w.-]+)(\[[\w,]+\])?>=(?P<version>[\w.]+)(,<[\w.]+)?$")


def oldest(pyproject: str) -> list[str]:
    """`name==version` of each dependency of the project.

    Raises:
        ValueError: a dependency has no lower bound, or more than a lower and an upper one.
    """
    lines = []
    for dependency in tomllib.loads(pyproject)["project"]["dependencies"]:
        bound = BOUND.match(dependency)
        if bound is None:
            raise ValueError(f"dependencies: {dependency!r} is not of the form name>=version[,<version]")
        lines.append(f"{bound['name']}=={bound['version']}")
    return lines


if __name__ == "__main__":
    print("\n".join(oldest((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))))

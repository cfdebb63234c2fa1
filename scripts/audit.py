"""Ask for known vulnerabilities of the versions in constraints.txt, by pip-audit; or say that nobody was asked.

python scripts/audit.py [CONSTRAINTS]

Exit status 1 if there is one; 0 also where the advisory service cannot be reached, which says nothing of the packages.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
# The file is pinned and complete: nothing is resolved or installed.
OPTIONS = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "30"]


def verdict(report: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """Exit status and lines for what pip-audit found.

    Args:
        report: of each package the name and version, with its vulnerabilities, or why it was skipped.
    """
    lines, known = [], [package for package in report if "skip_reason" not in package]
    for package in known:
        for found in package["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "no version yet"
            lines.append(f"{package['name']} {package['version']}: {found['id']}, mended in {fixed}")
    if not known:
        return 0, ["not audited: the advisory service knew none of the packages, so it is not the real one"]
    lines.append(f"{len(known)} of {len(report)} packages audited, {len(lines)} known vulnerabilities")
    skipped = [str(package["name"]) for package in report if "skip_reason" in package]
    return int(len(lines) > 1), lines + ([f"not audited: {', '.join(skipped)}"] if skipped else [])


def main(constraints: Path) -> int:
    """Audit, print, and give the exit status."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(constraints), *OPTIONS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    try:
        status, lines = verdict(json.loads(done.stdout)["dependencies"])
    except ValueError:  # it got no answer, and its last line says of whom
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        status, lines = 0, [f"not audited: pip-audit got no answer ({last[:300]})"]
    print("\n".join(lines))
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT / "constraints.txt"))

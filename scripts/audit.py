"""Query known vulnerabilities of the versions in constraints.txt, by pip-audit; or report that none was queried.

python scripts/audit.py [CONSTRAINTS]

Exit status 1 if there is one that is not answered below; 0 also where the advisory service cannot be reached, which
says nothing of the packages.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
# The file is pinned and complete: nothing is resolved or installed.
OPTIONS = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "30"]
ASGI = "MLflow 3.17 allows no gunicorn from 27 on, where it is fixed; `services up` runs uvicorn, which parses itself"
# Why a vulnerability does no harm here. To be checked again, and removed, when the package is updated.
ANSWERED = {
    "CVE-2026-53995": "MLflow's store in plain files, which MLflow itself refuses; here runs are in SQL databases",
    "CVE-2026-134820": ASGI,
    "CVE-2026-134821": ASGI,
    "CVE-2026-0596": "MLflow's serving by mlserver: 3.17 has that code no more",
    "CVE-2026-118623": "MLflow's artifacts of `mlflow.evaluate`, which nothing here calls",
    "CVE-2026-96775": "MLflow's models of DSPy, which nothing here loads",
}


def verdict(report: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """Exit status and lines for what pip-audit found.

    Args:
        report: of each package the name and version, with its vulnerabilities, or why it was skipped.
    """
    known = [package for package in report if "skip_reason" not in package]
    open_, answered = [], []
    for package in known:
        for found in package["vulns"]:
            name = f"{package['name']} {package['version']}: {found['id']}"
            answers = [ANSWERED[one] for one in (found["id"], *found.get("aliases", ())) if one in ANSWERED]
            fixed = ", ".join(found["fix_versions"]) or "no version yet"
            if answers:
                answered.append(f"{name}, answered: {answers[0]}")
            else:
                open_.append(f"{name}, fixed in {fixed}")
    if not known:
        return 0, ["not audited: the advisory service knew none of the packages, so it is not the real one"]
    counts = f"{len(open_)} known vulnerabilities" + (f" and {len(answered)} that are answered" if answered else "")
    skipped = [str(package["name"]) for package in report if "skip_reason" in package]
    lines = [*open_, *answered, f"{len(known)} of {len(report)} packages audited, {counts}"]
    return int(bool(open_)), lines + ([f"not audited: {', '.join(skipped)}"] if skipped else [])


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

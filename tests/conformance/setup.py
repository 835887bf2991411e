"""Installs what the test suite runs against into `tools/`, which is untracked: official SDK and tools, DynamoDB's stand-in,
the second type checker.

Idempotent, and done at once when everything is there in these versions. Packages come from the index that npm
is configured with. The Python SDK, hypercorn and awslambdaric belong to the development environment.

    python tests/conformance/setup.py
"""

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"
PACKAGES = {
    "@restatedev/restate-sdk": "1.17.2",
    "@restatedev/restate-sdk-clients": "1.17.2",
    "@restatedev/restate-server": "1.7.12",
    "@restatedev/restate": "1.7.12",
    "node": "22",
    "pyright": "1.1.414",  # from npm: the package of the same name on Python's index fetches this one when it is first run
}
if (sys.platform, platform.machine()) == ("linux", "x86_64"):  # elsewhere DYNAMODB_EMULATOR names a build of one's own
    PACKAGES["@dynoxide/linux-x64"] = "1.2.1"


def installed(package: str) -> str | None:
    """The installed version, None when there is none."""
    manifest = TOOLS / "node_modules" / package / "package.json"
    return json.loads(manifest.read_text())["version"] if manifest.exists() else None


def satisfied(package: str, wanted: str) -> bool:
    found = installed(package)
    return found is not None and (found == wanted or found.startswith(wanted + "."))


def main() -> int:
    missing = [package for package, wanted in PACKAGES.items() if not satisfied(package, wanted)]
    if missing or not (TOOLS / "node_modules" / "node" / "bin" / "node").exists():
        npm = shutil.which("npm")
        if npm is None:
            print(
                "npm expected on the PATH, none found; install Node with npm and run this again",
                file=sys.stderr,
            )
            return 1
        TOOLS.mkdir(exist_ok=True)
        manifest = TOOLS / "package.json"
        if not manifest.exists():
            manifest.write_text('{"private": true}\n')
        wanted = [f"{package}@{version}" for package, version in PACKAGES.items()]
        subprocess.run([npm, "install", "--no-audit", "--no-fund", *wanted], cwd=TOOLS, check=True)
    for package in PACKAGES:
        print(f"{package} {installed(package)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/bin/sh
# The whole test-suite: lint, types, tests. Arguments go to pytest, e.g. `scripts/test.sh tests/app -k serve`.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install.sh dev
if command -v npm >/dev/null; then
  # The official SDK for TypeScript and the official tools; tests that need them skip themselves where they are missing.
  .venv/bin/python tests/conformance/setup.py || echo "warning: the official tools could not be installed; their tests are skipped" >&2
fi
.venv/bin/ruff check
.venv/bin/ruff format --check
.venv/bin/mypy
exec .venv/bin/python -m pytest -n 2 --dist loadgroup "$@"

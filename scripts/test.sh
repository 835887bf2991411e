#!/bin/sh
# The whole test-suite: lint, types, tests. Arguments go to pytest, e.g. `scripts/test.sh tests/app -k serve`.
set -eu
cd "$(dirname "$0")/.."
# The tests start some thousand processes: what each would compile again is kept instead.
unset PYTHONDONTWRITEBYTECODE
sh scripts/install.sh dev
# The templates' linter has an environment of its own; its tests skip themselves where it is missing.
timeout 90 sh scripts/install_tools.sh lint || echo "warning: the templates' linter could not be installed; its tests are skipped" >&2
if command -v npm >/dev/null; then
  # The official SDK for TypeScript and the official tools; tests that need them skip themselves where they are missing.
  .venv/bin/python tests/conformance/setup.py || echo "warning: the official tools could not be installed; their tests are skipped" >&2
fi
.venv/bin/ruff check
.venv/bin/ruff format --check
.venv/bin/mypy
# Most tests wait for other processes most of the time: twice as many of them as a small machine has cores.
exec .venv/bin/python -m pytest -n 4 --dist loadgroup "$@"

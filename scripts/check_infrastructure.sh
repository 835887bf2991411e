#!/bin/sh
# Everything that is known about the templates: lint, every combination of parameters, roles, security rules, packages as `sam build` makes
# them, a rehearsed deployment, events in containers, the CDK constructs. Takes some minutes and one core; skips say what is missing.
set -eu
cd "$(dirname "$0")/.."
# As in test.sh: the AWS tools are large, and would be compiled anew by each of their processes.
unset PYTHONDONTWRITEBYTECODE
sh scripts/install.sh dev
.venv/bin/python tests/conformance/setup.py >/dev/null
timeout 240 sh scripts/install_tools.sh lint sam security cdk || echo "WARNING: not every tool could be installed; its tests are skipped" >&2
HOLDFAST_INFRASTRUCTURE=long exec .venv/bin/python -m pytest -p no:cacheprovider tests/infra "$@"

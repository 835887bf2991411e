#!/bin/sh
# Installs Holdfast into .venv and runs the demonstration: workflows that survive the kill of their server.
# Needs nothing but Python 3.11. Exit code 0: everything happened as claimed.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install.sh runtime
exec .venv/bin/holdfast demo "$@"

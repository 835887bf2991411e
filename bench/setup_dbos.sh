#!/bin/sh
# Installs what bench_dbos.py compares with: DBOS in a virtual environment of its own (tools/dbos, untracked) and
# PostgreSQL from Debian's packages. Safe to run again.
set -eu
cd "$(dirname "$0")/.."
if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql
fi
if [ ! -x tools/dbos/bin/python ]; then
    mkdir -p tools
    "${PYTHON:-python3}" -m venv tools/dbos
fi
tools/dbos/bin/pip install -q "dbos==3.4.0" "uvloop>=0.21"
tools/dbos/bin/python -c 'import importlib.metadata as m; print("dbos", m.version("dbos"))'
ls -d /usr/lib/postgresql/*

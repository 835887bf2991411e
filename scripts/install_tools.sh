#!/bin/sh
# Tools for the templates, each in a virtual environment of its own, because their pins collide with the application's and each other's:
#   install_tools.sh lint        .venv-lint       cfn-lint and the SAM transform
#   install_tools.sh sam         .venv-sam        the SAM command line
#   install_tools.sh security    .venv-security   checkov
#   install_tools.sh cdk         .venv-cdk        CDK for Python, and cdk-nag (they run on Node.js)
# Needs Python 3.11 or newer and a package index that pip reaches. Done at once when everything is there already.
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "usage: $0 lint|sam|security|cdk ..." >&2; exit 2; }
for tool in "$@"; do
  wanted=tests/infra/requirements/$tool.txt
  [ -f "$wanted" ] || { echo "error: expected lint, sam, security or cdk, found '$tool'" >&2; exit 2; }
  venv=.venv-$tool
  cmp -s "$wanted" "$venv/.installed" && continue
  echo "Installing $tool into $venv ..."
  rm -rf "$venv"
  .venv/bin/python -m venv "$venv" 2>/dev/null || python3 -m venv "$venv"
  # As in install.sh: uv is quicker, and pip knows about mirrors.
  .venv/bin/uv pip install -q --python "$venv/bin/python" -r "$wanted" 2>/dev/null ||
    "$venv/bin/python" -m pip --disable-pip-version-check install -q -r "$wanted"
  cp "$wanted" "$venv/.installed"
done

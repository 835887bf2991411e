#!/bin/sh
# Puts Holdfast and what it needs into .venv, in the versions of uv.lock: `install.sh runtime` to run it, `install.sh dev` to work on it.
# Needs Python 3.11 or newer and a package index that pip reaches. Done at once when everything is there already.
set -eu
cd "$(dirname "$0")/.."
extra=${1:-runtime}
venv=.venv

find_python() {
  for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: Python 3.11 or newer is needed, none was found; install it, or say where it is with PYTHON=/path/to/python3" >&2
  return 1
}

# Leaves nothing behind when it fails.
make_venv() {
  "$1" -m venv "$venv" >/dev/null 2>&1 || { rm -rf "$venv"; return 1; }
}

checksum=$(cat uv.lock pyproject.toml | sha256sum | cut -d' ' -f1)
for stamp in "$venv/.installed-$extra" "$venv/.installed-dev"; do
  if [ "$(cat "$stamp" 2>/dev/null)" = "$checksum" ]; then
    exit 0
  fi
done

if ! "$venv/bin/python" -c '' 2>/dev/null; then
  python=$(find_python)
  echo "Making a virtual environment in $venv ..."
  if ! make_venv "$python" && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Python's venv module is missing: installing python3-venv ..."
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
    make_venv "$python" || true
  fi
  if [ ! -x "$venv/bin/python" ]; then
    echo "error: $python cannot make virtual environments; install its venv module (Debian: apt-get install python3-venv) and run this again" >&2
    exit 1
  fi
fi
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >/dev/null

echo "Installing ($extra) ..."
pip="$venv/bin/python -m pip --disable-pip-version-check"
# uv reads the lock and installs, in a quarter of pip's time. Where package indexes are mirrored it may be pip alone that knows how: then pip does.
[ -x "$venv/bin/uv" ] || $pip install -q uv
wanted=$(mktemp)
trap 'rm -f "$wanted"' EXIT
"$venv/bin/uv" export -q --frozen --no-emit-project --extra "$extra" --format requirements-txt >"$wanted"
mirror=$($pip config get global.index-url 2>/dev/null || true)
[ -z "$mirror" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$mirror}"
UV_HTTP_TIMEOUT=60 timeout 300 "$venv/bin/uv" pip install -q --compile-bytecode --python "$venv/bin/python" -r "$wanted" ||
  $pip install -q -r "$wanted"
$pip install -q --no-deps -e .
echo "$checksum" >"$venv/.installed-$extra"

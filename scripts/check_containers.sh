#!/bin/sh
# `sam local`: every event in a container, and orders through a coordinator whose functions are containers. Installs and starts a Docker engine
# where none answers and that is allowed. Where no engine can run it says so and ends with 0: what it finds is about this project or nothing.
set -eu
cd "$(dirname "$0")/.."
# As in test.sh: the AWS tools are large, and would be compiled anew by each of their processes.
unset PYTHONDONTWRITEBYTECODE
log=$(mktemp)
engine=

not_tried() {
  echo "WARNING: \`sam local\` was NOT tried: $1; see $log" >&2
  exit 0
}

stop() {
  [ -z "$engine" ] || { kill "$engine" && wait "$engine"; } 2>/dev/null || true
}
trap stop EXIT

if ! docker info >>"$log" 2>&1; then
  [ "$(id -u)" = 0 ] || not_tried "no Docker engine answers, and only root may start one"
  if ! command -v dockerd >/dev/null; then
    command -v apt-get >/dev/null || not_tried "no Docker engine is installed"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 120 apt-get install -y -qq --no-install-recommends docker.io; } >>"$log" 2>&1 ||
      not_tried "no Docker engine could be installed"
  fi
  dockerd >>"$log" 2>&1 &
  engine=$!
  tries=0
  until docker info >>"$log" 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 30 ] && kill -0 $engine 2>/dev/null || not_tried "the Docker engine does not start"
    sleep 1
  done
fi

sh scripts/install.sh dev
timeout 240 sh scripts/install_tools.sh sam >>"$log" 2>&1 || not_tried "the SAM command line could not be installed"
command -v busybox >/dev/null || { apt-get update -qq && apt-get install -y -qq busybox-static; } >>"$log" 2>&1 || not_tried "busybox is missing"
version=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
image=lambda-python$(echo "$version" | tr -d .):local
timeout 120 bash scripts/lambda_image.sh .venv/bin/python "$version" "$image" >>"$log" 2>&1 || not_tried "no image for functions could be made"
timeout 60 docker run --rm --entrypoint /bin/sh "$image" -c true >>"$log" 2>&1 || not_tried "the Docker engine runs no containers"
HOLDFAST_INFRASTRUCTURE=long .venv/bin/python -m pytest -q -p no:cacheprovider tests/infra/test_sam_local.py "$@"

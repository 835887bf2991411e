#!/usr/bin/env bash
# Makes the two images that the Dockerfile starts from, where no registry of images is reached: a Debian with Python, and uv.
#   scripts/base_image.sh [holdfast-base:local] [holdfast-uv:local]
#   docker build --network host --build-arg BASE=holdfast-base:local --build-arg UV=holdfast-uv:local -t holdfast:local .
# Needs a running Docker engine, root, debootstrap and its mirror, and .venv with uv. Takes one to five minutes, once.
# This machine's certificates go along, so that an index which it trusts is trusted in the build.
set -euo pipefail
cd "$(dirname "$0")/.."
BASE=${1:-holdfast-base:local} UV=${2:-holdfast-uv:local}
R=$(mktemp -d); trap 'rm -rf "$R"' EXIT
[ -x .venv/bin/uv ] || .venv/bin/python -m pip --disable-pip-version-check install -q uv
mkdir "$R/uv" && cp -L .venv/bin/uv "$R/uv/uv"
tar -C "$R/uv" --owner=0 --group=0 -cf - . | docker import - "$UV"
debootstrap --variant=minbase --include=python3,ca-certificates bookworm "$R/root" >"$R/log" 2>&1 || { tail -5 "$R/log" >&2; exit 1; }
cp "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$R/root/etc/ssl/certs/ca-certificates.crt"
tar -C "$R/root" -cf - . | docker import -c 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' - "$BASE"

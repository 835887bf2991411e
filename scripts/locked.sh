#!/bin/sh
# The versions of the lock file, as pip wants to be told: `locked.sh protobuf msgpack` prints `protobuf==6.33.1 msgpack==1.1.2`.
set -eu
cd "$(dirname "$0")/.."
for name in "$@"; do
  version=$(awk -v name="$name" '$0 == "name = \"" name "\"" { found = 1; next } found { gsub(/version = |"/, ""); print; exit }' uv.lock)
  [ -n "$version" ] || { echo "error: uv.lock has no $name" >&2; exit 1; }
  printf '%s==%s ' "$name" "$version"
done

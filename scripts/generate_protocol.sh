#!/usr/bin/env bash
# Generates sdk/holdfast/protocol/wire_pb2.py and wire_pb2.pyi from wire.proto.
#
#   scripts/generate_protocol.sh [output directory]      default: sdk
#
# Needs grpcio-tools (in the dev extra). PYTHON chooses the interpreter.
# Of what the generator writes only the serialised descriptor is kept: holdfast/protocol/classes.py makes classes of it without loading most of
# protobuf, and without the generator's check that refuses every protobuf runtime older than itself.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
output="${1:-sdk}"
"$python" -m grpc_tools.protoc -I sdk --python_out="$output" --pyi_out="$output" sdk/holdfast/protocol/wire.proto
generated="$output/holdfast/protocol/wire_pb2.py"
"$python" - "$generated" <<'PYTHON'
import pathlib
import re
import sys

path = pathlib.Path(sys.argv[1])
descriptor = re.search(r"AddSerializedFile\((b'.*')\)$", path.read_text(), re.M)[1]
path.write_text(f'''# Generated from wire.proto by scripts/generate_protocol.sh; do not edit.
"""The messages of the protocol, as protobuf classes."""

from holdfast.protocol.classes import build

DESCRIPTOR = {descriptor}

globals().update(build(DESCRIPTOR, __name__))
''')
PYTHON

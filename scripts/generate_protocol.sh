#!/usr/bin/env bash
# Generates sdk/holdfast/protocol/wire_pb2.py and wire_pb2.pyi from wire.proto.
#
#   scripts/generate_protocol.sh [output directory]      default: sdk
#
# Needs grpcio-tools (in the dev extra). PYTHON chooses the interpreter.
# The generator writes a check that refuses every protobuf runtime older than itself. It is taken out: the file only
# adds a serialised descriptor and builds classes from it, which every runtime of our supported range can do, and
# without this a Lambda package would have to follow the generator's version.
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
text = path.read_text()
text = re.sub(r"^# Protobuf Python Version: .*\n", "", text, flags=re.M)
text = re.sub(r"^from google\.protobuf import runtime_version.*\n", "", text, flags=re.M)
text = re.sub(r"^_runtime_version\.ValidateProtobufRuntimeVersion\((?:.|\n)*?^\)\n", "", text, flags=re.M)
path.write_text(text)
PYTHON

"""The message classes of protobuf's core, asked directly, are those that protobuf makes itself."""

import os
import subprocess
import sys
from pathlib import Path

from holdfast.protocol.classes import build, by_protobuf
from holdfast.protocol.wire_pb2 import DESCRIPTOR

SDK = Path(__file__).parents[2] / "sdk"


def test_both_ways_make_the_same_classes() -> None:
    directly, usually = build(DESCRIPTOR, "m"), by_protobuf(DESCRIPTOR)
    assert directly.keys() == usually.keys()
    for name, found in directly.items():
        assert found.DESCRIPTOR.full_name == usually[name].DESCRIPTOR.full_name
        assert (found.__name__, found.__module__) == (name, "m")
    given = {"known_entries": 2, "state_map": [{"key": b"k", "value": b"v"}]}
    content = directly["Start"](**given).SerializeToString()
    assert content == usually["Start"](**given).SerializeToString()
    assert usually["Start"].FromString(content).state_map[0].value == b"v"
    assert directly["Error"].PAUSE == usually["Error"].PAUSE == 1


def test_without_the_core_protobuf_makes_them() -> None:
    program = """
import sys
sys.modules["google._upb"] = None
from holdfast.protocol.messages import Start, Value
from google.protobuf.internal import api_implementation
assert api_implementation.Type() == "python"
assert Start.FromString(Start(known_entries=3, key="k").SerializeToString()).known_entries == 3
"""
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(SDK)}, check=True)

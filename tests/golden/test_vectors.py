"""Every captured body decodes to its recorded summary and re-encodes byte for byte; one test per vector."""

import base64
import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from holdfast.protocol import ids
from holdfast.protocol.awaiting import Combinator, from_suspension
from holdfast.protocol.errors import ProtocolError
from holdfast.protocol.frames import FrameDecoder, encode, split
from holdfast.protocol.ids import InvocationId
from holdfast.protocol.manifest import MANIFEST_ACCEPT, dump_manifest, manifest_version_of, parse_manifest
from holdfast.protocol.messages import InputCommand as Input
from holdfast.protocol.messages import Start, Suspension, input_command, parse
from tests.golden.summary import bodies, load, message_class, names, summarise

EXCHANGES = [name for name in names() if "exchanges" in load(name)]
CANCEL = ("s", 1)
# Bodies an SDK refuses because of one message, which we refuse to parse as well.
REFUSED = {"known_entries = 0", "notification without a result"}


def test_all_vectors_are_there() -> None:
    assert len(names()) == 49
    assert len(EXCHANGES) == 45


@pytest.mark.parametrize("name", EXCHANGES)
def test_frames_decode_to_the_summary_and_encode_to_the_same_bytes(name: str) -> None:
    for body in bodies(load(name)):
        frames = list(split(body.content))
        assert FrameDecoder().feed(body.content) == frames, body.place
        encoded = b""
        summaries = []
        for frame, recorded in zip(frames, body.decoded, strict=True):
            message = parse(frame.type, frame.body, version=body.version)
            summaries.append(summarise(frame, message))
            encoded += encode(frame.type, message.SerializeToString(), flags=_flags(recorded))
        assert summaries == [_without_flags(recorded) for recorded in body.decoded], body.place
        assert encoded == body.content, body.place


@pytest.mark.parametrize("name", EXCHANGES)
def test_start_carries_the_id_its_text_and_its_seed(name: str) -> None:
    for body in bodies(load(name)):
        for frame in split(body.content):
            message = parse(frame.type, frame.body, version=body.version)
            if isinstance(message, Start):
                invocation = InvocationId.from_raw(message.id)
                assert str(invocation) == message.debug_id
                assert ids.random_seed(message.id) == message.random_seed


@pytest.mark.parametrize("name", EXCHANGES)
def test_inputs_are_written_as_the_reference_writes_them(name: str) -> None:
    for body in bodies(load(name)):
        for frame in split(body.content):
            message = parse(frame.type, frame.body, version=body.version)
            if isinstance(message, Input):
                headers = [(header.key, header.value) for header in message.headers]
                assert input_command(headers, message.value.content) == encode(frame.type, frame.body)


@pytest.mark.parametrize("name", EXCHANGES)
def test_suspensions_make_a_tree(name: str) -> None:
    for body in bodies(load(name)):
        for frame in split(body.content):
            message = parse(frame.type, frame.body, version=body.version)
            if isinstance(message, Suspension):
                tree = from_suspension(message, version=body.version)
                assert CANCEL in tree.keys()  # noqa: SIM118 - a method of the tree; SDKs list the cancel signal always
                assert (tree.combinator is Combinator.UNKNOWN) is (body.version < 7)


def test_discovery() -> None:
    found = 0
    for name in ("01-discovery-service-object-workflow", "39-v5-over-http11"):
        for exchange in load(name)["exchanges"]:
            document = exchange["response"].get("decoded_json")
            if document is None:
                continue
            headers = {key.lower(): value for key, value in exchange["response"]["headers"].items()}
            version = manifest_version_of(headers["content-type"])
            assert version is not None
            content = bytes.fromhex(exchange["response"]["body_hex"])
            assert json.loads(content) == document
            assert dump_manifest(parse_manifest(content), version) == document
            found += 1
    assert found == 2


def test_50_lambda_envelope() -> None:
    vector = load("50-lambda-envelope")
    event, result = vector["discovery"]["event"], vector["discovery"]["result"]
    assert event["headers"]["accept"] == MANIFEST_ACCEPT
    version = manifest_version_of(result["headers"]["content-type"])
    assert version == 4
    document = json.loads(base64.b64decode(result["body"]))
    assert dump_manifest(parse_manifest(document), version) == document
    for side in ("event", "result"):
        envelope = vector["invocation"][side]
        assert envelope["isBase64Encoded"] is True
        content = base64.b64decode(envelope["body"], validate=True)
        frames = list(split(content))
        assert len(frames) == 2
        messages = [parse(frame.type, frame.body) for frame in frames]
        again = [encode(f.type, m.SerializeToString()) for f, m in zip(frames, messages, strict=True)]
        assert base64.b64encode(b"".join(again)).decode() == envelope["body"]


@pytest.mark.parametrize("case", load("51-sdk-input-checks")["cases"], ids=lambda case: case["case"])
def test_51_sdk_input_checks(case: dict[str, Any]) -> None:
    for side in ("request", "response"):
        content = bytes.fromhex(case[side]["body_hex"])
        frames = list(split(content))
        decoded = [message_class(frame.type).FromString(frame.body) for frame in frames]
        summaries = [summarise(frame, message) for frame, message in zip(frames, decoded, strict=True)]
        for summary in summaries:
            del summary["length"]
        assert summaries == case[side]["decoded"]
        again = [encode(f.type, m.SerializeToString()) for f, m in zip(frames, decoded, strict=True)]
        assert b"".join(again) == content
        if side == "request" and case["case"] in REFUSED:
            with pytest.raises(ProtocolError):
                [parse(frame.type, frame.body) for frame in frames]
        else:
            assert [parse(frame.type, frame.body) for frame in frames] == decoded


def test_60_base62() -> None:
    vector = load("60-identifiers")
    assert vector["base62_alphabet"] == ids._DIGITS
    for example in vector["base62_examples"]:
        data = bytes.fromhex(example["hex_bytes"])
        text = example.get("as_11_chars") or example["as_22_chars"]
        assert ids.base62_encode(data) == text
        assert ids.base62_decode(text, len(data)) == data


def test_60_partition_keys() -> None:
    for example in load("60-identifiers")["partition_key_examples"]:
        expected = int(example["partition_key_hex"], 16)
        if "key" in example:
            assert ids.keyed_partition_key(example["key"]) == expected
        else:
            assert ids.unkeyed_partition_key(example["service"], example["bucket"]) == expected


@pytest.mark.parametrize(
    "group",
    [
        "virtual_object_invocations",
        "random_uuid_invocations",
        "workflow_run_invocations",
        "idempotent_invocations",
    ],
)
def test_60_invocations(group: str) -> None:
    for example in load("60-identifiers")[group]:
        invocation = InvocationId.parse(example["invocation_id"])
        assert invocation.raw.hex() == example["raw_hex"]
        assert str(InvocationId.from_raw(invocation.raw)) == example["invocation_id"]
        assert ids.random_seed(invocation.raw) == example["random_seed"]
        if "key" in example:
            assert invocation.partition_key == ids.keyed_partition_key(example["key"])
        if "partition_bucket" in example:
            bucket = example["partition_bucket"]
            assert invocation.partition_key == ids.unkeyed_partition_key(example["service"], bucket)
        if group == "workflow_run_invocations":
            assert ids.workflow_run_id(example["service"], example["key"]) == invocation
        if group == "idempotent_invocations":
            assert ids.idempotency_bucket(example["idempotency_key"]) == example["partition_bucket"]
            derived = ids.idempotent_id(example["service"], example["handler"], example["idempotency_key"], example.get("key"))
            assert derived == invocation


def test_60_keyed_idempotent_invocation() -> None:
    """HTTP surfaces §0.2."""
    derived = ids.idempotent_id("ApiCounter", "add", "obj-1", "obj-a")
    assert str(derived) == "inv_12f79Bk4aZVS10Q51B0w0ZMT3i2gMhYwgC"


def test_60_awakeables_and_deployments() -> None:
    vector = load("60-identifiers")
    for example in vector["awakeables"]:
        parsed = ids.parse_awakeable_id(example["awakeable_id"])
        assert parsed.invocation.raw.hex() == example["invocation_raw_hex"]
        assert str(parsed.invocation) == example["invocation_id"]
        assert (parsed.index, parsed.legacy) == (example["signal_index"], False)
        assert ids.awakeable_id(parsed.invocation, parsed.index) == example["awakeable_id"]
    for example in vector["deployments"]:
        raw = ids.parse_deployment_id(example["deployment_id"])
        assert raw.hex() == example["raw_hex"]
        assert ids.deployment_id(raw) == example["deployment_id"]
        assert int.from_bytes(raw[:6], "big") == example["ulid_unix_ms"]


def test_61_request_identity() -> None:
    vector = load("61-request-identity")
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vector["public_key_hex"]))
    for request in vector["signed_requests"]:
        token = request["headers"]["x-restate-jwt-v1"]
        signed, _, signature = token.rpartition(".")
        key.verify(_unpadded(signature), signed.encode())
        head, claims = (json.loads(_unpadded(part)) for part in signed.split("."))
        assert head == request["jwt_header"]
        assert head["kid"] == vector["identity_key"]
        assert claims == request["jwt_claims"]
        assert claims["aud"] == request["path"]
        with pytest.raises(InvalidSignature):
            key.verify(_unpadded(signature), signed.encode() + b"x")


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _flags(recorded: dict[str, Any]) -> int:
    return int(str(recorded.get("flags", "0x0")), 16)


def _without_flags(recorded: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recorded.items() if key != "flags"}

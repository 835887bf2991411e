"""Our signature is botocore's, byte for byte."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import given
from hypothesis import strategies as st

from holdfast_runtime.adapters.sigv4 import Credentials, Signer

NOW_MS = 1_795_302_000_123


def botocore_authorization(
    path: str, headers: dict[str, str], body: bytes, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> str:
    class Frozen(datetime):
        @classmethod
        def utcnow(cls) -> datetime:
            return datetime.fromtimestamp(NOW_MS // 1000, UTC).replace(tzinfo=None)

    monkeypatch.setattr(botocore.auth.datetime, "datetime", Frozen)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: Frozen.utcnow(), raising=False)
    request = AWSRequest("POST", f"https://{headers['host']}{path}", headers=headers, data=body)
    boto = BotoCredentials(credentials.access_key, credentials.secret_key, credentials.token)
    botocore.auth.SigV4Auth(boto, "lambda", "eu-central-1").add_auth(request)
    return str(request.headers["Authorization"])


@pytest.mark.parametrize("token", [None, "session/token+=="])
@pytest.mark.parametrize("qualifier", ["1", "live", "$LATEST"])
def test_the_signature_of_an_invoke(token: str | None, qualifier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = f"arn:aws:lambda:eu-central-1:123456789012:function:my-fn_1:{qualifier}"
    path = f"/2015-03-31/functions/{quote(arn, safe='')}/invocations"
    headers = {"host": "lambda.eu-central-1.amazonaws.com", "content-type": "application/json", "x-amz-thing": " a  b "}
    credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", token)
    signer = Signer("lambda", "eu-central-1")
    for body in (b"", b'{"path":"/discover"}'):  # the second time with the kept key
        added = signer.sign("POST", path, headers, body, credentials, now_ms=NOW_MS)
        assert added["authorization"] == botocore_authorization(path, headers, body, credentials, monkeypatch)
        assert added.get("x-amz-security-token") == token


@given(first=st.integers(0, 4 * 10**12), second=st.integers(0, 4 * 10**12), secret=st.text("abc", min_size=1))
def test_a_kept_key_never_outlives_its_day_or_secret(first: int, second: int, secret: str) -> None:
    reused = Signer("lambda", "eu-central-1")
    reused.sign("POST", "/", {"host": "h"}, b"", Credentials("id", "abc", None), now_ms=first)
    credentials = Credentials("id", secret, None)
    fresh = Signer("lambda", "eu-central-1").sign("POST", "/", {"host": "h"}, b"", credentials, now_ms=second)
    assert reused.sign("POST", "/", {"host": "h"}, b"", credentials, now_ms=second) == fresh

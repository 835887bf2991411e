"""Addresses of deployments: parsed, compared, written to the registry (http-api §2.5, §3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, assert_never
from urllib.parse import urlsplit

from holdfast_runtime.coordinator.front import RegisterDeployment, RegistrationError, UpdateDeployment
from holdfast_runtime.engine.registry import Address, HttpAddress, HttpVersion, InProcessAddress, LambdaAddress

UNQUALIFIED: Final = (
    "A qualified ARN needs a version or alias suffix. If you want to use the unpublished version, "
    "provide $LATEST and make sure your shell doesn't treat it as a variable"
)


def address_of(request: RegisterDeployment) -> HttpAddress | LambdaAddress:
    """The address a registration names. Raises RegistrationError (400) when it cannot be one."""
    if request.arn is not None:
        return LambdaAddress(checked_arn(request.arn), request.assume_role_arn, None, dict(request.additional_headers))
    version = HttpVersion.HTTP_1_1 if request.use_http_11 else HttpVersion.HTTP_2
    return HttpAddress(checked_uri(request.uri or ""), version, dict(request.additional_headers))


def repointed(address: Address, update: UpdateDeployment) -> Address:
    """The address after an update; equal to the old one when nothing about it changes. Raises RegistrationError (400).

    A `uri` makes it an HTTP deployment and an `arn` a Lambda deployment, whatever it was.
    """
    headers = {} if isinstance(address, InProcessAddress) else dict(address.additional_headers)
    if update.additional_headers is not None:
        headers = dict(update.additional_headers)
    version = address.http_version if isinstance(address, HttpAddress) else HttpVersion.HTTP_2
    if update.use_http_11 is not None:
        version = HttpVersion.HTTP_1_1 if update.use_http_11 else HttpVersion.HTTP_2
    if update.uri is not None:
        return HttpAddress(checked_uri(update.uri), version, headers)
    # What compresses is the code behind the ARN, discovery will tell; until then the old answer stands.
    compression = address.compression if isinstance(address, LambdaAddress) else None
    if update.arn is not None:
        return LambdaAddress(checked_arn(update.arn), update.assume_role_arn, compression, headers)
    match address:
        case HttpAddress():
            return replace(address, http_version=version, additional_headers=headers)
        case LambdaAddress():
            return replace(address, assume_role_arn=update.assume_role_arn or address.assume_role_arn, additional_headers=headers)
        case InProcessAddress():
            return address
    assert_never(address)


def checked_uri(uri: str) -> str:
    """The URI with `/` as path if it had none."""
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise _invalid("uri", str(error)) from error
    if not parts.netloc or not host:
        raise _invalid("uri", f"The provided uri {uri} is not absolute, only absolute URIs can be used.")
    if parts.scheme not in ("http", "https"):
        raise _invalid("uri", f"expected a URI starting with http:// or https://, found {uri}")
    if parts.query or parts.fragment:
        raise _invalid("uri", f"expected a URI without query and fragment, found {uri}")
    return parts._replace(path=parts.path or "/").geturl()


def checked_arn(arn: str) -> str:
    parts = arn.split(":")
    if len(parts) < 7 or parts[0] != "arn" or parts[2] != "lambda" or parts[5] != "function":
        form = "arn:aws:lambda:<region>:<account>:function:<name>:<version>"
        raise _invalid("arn", f"expected {form}, found {arn}")
    if len(parts) == 7:
        raise _invalid("arn", UNQUALIFIED)
    if len(parts) != 8 or not all(parts):
        raise _invalid("arn", f"expected eight parts separated by ':', none of them empty, found {arn}")
    return arn


def _invalid(field: str, reason: str) -> RegistrationError:
    return RegistrationError(f"The request field '{field}' is invalid. Reason: {reason}", status=400)


def identity(address: Address, routing_headers: Sequence[str] = ()) -> str:
    """What makes two addresses the same deployment: authority and path (not the scheme), or the full ARN.

    routing_headers: names of headers by which something in front of HTTP endpoints tells them apart, in lower case.
    """
    match address:
        case HttpAddress(uri=uri):
            parts = urlsplit(uri)
            sent = {name.lower(): value for name, value in address.additional_headers.items()}
            routed = "".join(f" {name}={sent[name]!r}" for name in routing_headers if name in sent)
            return f"http {parts.netloc.lower()}{parts.path}{routed}"
        case LambdaAddress(arn=arn):
            return f"lambda {arn}"
        case InProcessAddress(name=name):
            return f"in-process {name}"
    assert_never(address)


def shown(address: Address) -> str:
    """The address as messages name it: without user and password."""
    match address:
        case HttpAddress(uri=uri):
            parts = urlsplit(uri)
            return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        case LambdaAddress(arn=arn):
            return arn
        case InProcessAddress(name=name):
            return f"in-process:{name}"
    assert_never(address)


def dump_address(address: Address) -> dict[str, Any]:
    match address:
        case HttpAddress():
            return {
                "uri": address.uri,
                "http_version": address.http_version.value,
                "additional_headers": dict(address.additional_headers),
            }
        case LambdaAddress():
            return {
                "arn": address.arn,
                "assume_role_arn": address.assume_role_arn,
                "compression": address.compression,
                "additional_headers": dict(address.additional_headers),
            }
        case InProcessAddress():
            return {"in_process": address.name}
    assert_never(address)


def load_address(document: Mapping[str, Any]) -> Address:
    if "in_process" in document:
        return InProcessAddress(document["in_process"])
    if "arn" in document:
        return LambdaAddress(
            document["arn"],
            document["assume_role_arn"],
            document["compression"],
            document["additional_headers"],
        )
    return HttpAddress(document["uri"], HttpVersion(document["http_version"]), document["additional_headers"])

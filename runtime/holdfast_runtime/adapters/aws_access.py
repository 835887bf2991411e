"""Who we are to AWS and where its services answer: credentials, assumed roles, endpoints; found by aioboto3.

The usual way (environment, profile, container or instance role, `AWS_ENDPOINT_URL[_SERVICE]`), once, on first
use. Sessions of assumed roles are kept and renewed before they expire; concurrent callers wait for one renewal.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from typing import Any, Final, NamedTuple

from holdfast_runtime.adapters.sigv4 import Credentials
from holdfast_runtime.ports.system import Clock

REGION_VARIABLE: Final = "AWS_REGION"  # every tool of AWS reads it, boto3 alone knows AWS_DEFAULT_REGION only
RENEW_BEFORE_MS: Final = 5 * 60 * 1000  # longer than clocks disagree and a request is signed ahead
RENEW_AGAIN_MS: Final = 30 * 1000  # after a renewal that failed: until then callers do not wait for another one
LEAST_AGE_MS: Final = 60 * 1000  # a session younger than this is not replaced: its refusal has another reason


class AccessFailed(Exception):
    """No credentials, or a role that cannot be assumed; the text says which and what to do."""


class _Assumed(NamedTuple):
    """renew_at_ms: before `expires_at_ms`, so that a service that is away for a moment is asked again in time."""

    credentials: Credentials
    since_ms: int
    renew_at_ms: int
    expires_at_ms: int


class AwsAccess:
    """The AWS libraries are imported at the first use, so that a coordinator without AWS never loads them."""

    def __init__(self, clock: Clock, *, external_id: str | None = None) -> None:
        self._clock = clock
        self._external_id = external_id
        self._session: Any = None
        self._own: Any = None
        self._endpoints: dict[tuple[str, str], str] = {}
        self._assumed: dict[tuple[str, str], _Assumed] = {}
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def endpoint(self, service: str, region: str) -> str:
        """The base URL of a service in a region, environment and profile considered. Raises AccessFailed."""
        key = (service, region)
        if key not in self._endpoints:
            session = await self._started()
            try:
                async with self._locks[key], session.client(service, region_name=region) as client:
                    self._endpoints[key] = client.meta.endpoint_url
            except ValueError as exc:
                raise AccessFailed(bad_endpoint(service, exc)) from exc
        return self._endpoints[key]

    async def region(self) -> str | None:
        """The region of the environment or the profile. Raises AccessFailed."""
        name: str | None = os.environ.get(REGION_VARIABLE) or (await self._started()).region_name
        return name

    async def credentials(self, region: str, role_arn: str | None) -> Credentials:
        """Our own, or those of `role_arn` assumed through the STS of `region`.

        Valid for some minutes at least.
        """
        if role_arn is None:
            return await self._own_credentials()
        key = (region, role_arn)
        if not self._fresh(key):
            async with self._locks[key]:
                if not self._fresh(key):
                    self._assumed[key] = await self._renewed(region, role_arn, self._assumed.get(key))
        return self._assumed[key].credentials

    def refused(self, region: str, role_arn: str) -> None:
        """What its session signed was denied: it may have been revoked, so the next call brings another."""
        held = self._assumed.get((region, role_arn))
        if held is not None and self._clock.now_ms() >= held.since_ms + LEAST_AGE_MS:
            del self._assumed[region, role_arn]

    def _fresh(self, key: tuple[str, str]) -> bool:
        held = self._assumed.get(key)
        return held is not None and self._clock.now_ms() < held.renew_at_ms

    async def _renewed(self, region: str, role_arn: str, held: _Assumed | None) -> _Assumed:
        """A new session, or the one we hold while it lasts."""
        try:
            return await self._assume(region, role_arn)
        except AccessFailed:
            now_ms = self._clock.now_ms()
            if held is None or now_ms >= held.expires_at_ms:
                raise
            return held._replace(renew_at_ms=min(now_ms + RENEW_AGAIN_MS, held.expires_at_ms))

    async def _own_credentials(self) -> Credentials:
        try:
            if self._own is None:
                self._own = await (await self._started()).get_credentials()
            frozen = await self._own.get_frozen_credentials() if self._own is not None else None
        except Exception as exc:  # files, metadata services, child processes: each provider has its own errors
            raise AccessFailed(f"the AWS credentials could not be loaded: {exc}") from exc
        if frozen is None:
            raise AccessFailed(
                "no AWS credentials found; give the coordinator a role, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    async def _assume(self, region: str, role_arn: str) -> _Assumed:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        config = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})
        more = {"ExternalId": self._external_id} if self._external_id is not None else {}
        name = f"holdfast-{self._clock.now_ms() // 1000}"
        try:
            async with (await self._started()).client("sts", region_name=region, config=config) as sts:
                answer = await sts.assume_role(RoleArn=role_arn, RoleSessionName=name, **more)
        except (BotoCoreError, ClientError) as exc:
            raise AccessFailed(f"role {role_arn} cannot be assumed: {exc}; its trust policy must name the coordinator's role") from exc
        given = answer["Credentials"]
        expires_at_ms = int(given["Expiration"].timestamp() * 1000)
        return _Assumed(
            Credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]),
            since_ms=self._clock.now_ms(),
            renew_at_ms=expires_at_ms - RENEW_BEFORE_MS,
            expires_at_ms=expires_at_ms,
        )

    async def _started(self) -> Any:
        if self._session is None:
            import aioboto3
            from botocore.exceptions import BotoCoreError

            try:
                self._session = aioboto3.Session()
            except BotoCoreError as exc:
                raise AccessFailed(bad_configuration(exc)) from exc
        return self._session


def bad_configuration(problem: Exception) -> str:
    """A profile that does not exist, a file that cannot be read."""
    return f"the configuration for AWS cannot be used: {problem}; correct AWS_PROFILE, or the files that it means"


def bad_endpoint(service: str, problem: Exception) -> str:
    """boto3 takes the variables as they are, and complains with a bare ValueError."""
    names = f"AWS_ENDPOINT_URL_{service.upper()} or AWS_ENDPOINT_URL"
    return f"expected a URL such as http://127.0.0.1:8000 in {names}, found something else ({problem}); correct it, or unset it"

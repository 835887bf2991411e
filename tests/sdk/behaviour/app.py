"""How the scenarios' services are served: `app` over HTTP, `handler` as a Lambda function; FLAVOUR says which of them."""

import os
from importlib import import_module

from holdfast import asgi, aws
from tests.sdk.behaviour import effects

services = import_module(f"tests.sdk.behaviour.{os.environ['FLAVOUR']}_services").services
keys = [os.environ["IDENTITY_KEY"]]
app = asgi.app(*services, logger=effects.logger(), identity_keys=keys)
handler = aws.lambda_handler(*services, logger=effects.logger(), identity_keys=keys)

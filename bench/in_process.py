"""A coordinator with the measured services in its own process: `python -m bench.in_process <store> <ingress port> <admin port>`."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from bench.services import own
from holdfast.endpoint import Endpoint
from holdfast_runtime.app.runtime import Runtime, RuntimeConfig
from holdfast_runtime.surfaces.server import Listener


async def run(store: Path, ingress_port: int, admin_port: int) -> None:
    runtime = Runtime(RuntimeConfig(store, Listener(port=ingress_port), Listener(port=admin_port)))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await runtime.start({"bench": Endpoint(own.SERVICES).handle})
    await ended.wait()
    await runtime.stop()


if __name__ == "__main__":
    uvloop.run(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))

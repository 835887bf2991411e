"""What the processes are started with: imports the function and notes what that and its first invocation take."""

import json
import os
import sys
import time
from typing import Any

_modules, _cpu, _wall = len(sys.modules), time.process_time(), time.perf_counter()
from app import handler as function  # type: ignore[import-not-found]  # noqa: E402

_import = {
    "import_ms": (time.perf_counter() - _wall) * 1000,
    "import_cpu_ms": (time.process_time() - _cpu) * 1000,
    "modules": len(sys.modules) - _modules,
}


def handler(event: Any, context: Any) -> Any:
    cpu, wall = time.process_time(), time.perf_counter()
    answer = function(event, context)
    first = {"first_ms": (time.perf_counter() - wall) * 1000, "first_cpu_ms": (time.process_time() - cpu) * 1000}
    with open("/proc/self/status") as status:
        resident = next(line for line in status if line.startswith("VmRSS"))
    first["memory_mb"] = int(resident.split()[1]) / 1024
    with open(os.environ["COLD_START_REPORT"], "w") as report:
        json.dump({**_import, **first}, report)
    return answer

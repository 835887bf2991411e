"""The inbox queue for tests: short polls, because one that was given up goes on in the emulator and swallows what comes next."""

from __future__ import annotations

from typing import Any

from holdfast_runtime.adapters.sqs import SqsInbox


class HurriedInbox(SqsInbox):
    """Polls for a second, and shows a message that was not deleted again after another one."""

    async def _call(self, operation: str, **parameters: Any) -> Any:
        if operation == "receive_message":
            parameters |= {"WaitTimeSeconds": 1, "VisibilityTimeout": 1}
        return await super()._call(operation, **parameters)

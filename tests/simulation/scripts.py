"""What handlers do in a simulated world: scripts, drawn from the seed and carried in the request, so that any attempt knows its whole
program.

A script is a list of steps (see `handlers.Run`); a step that needs somebody else sends that somebody a script of its own.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

Step = list[Any]
Script = list[Step]
Target = tuple[str, str, str | None]

OBJECTS: Final = ("Lazy", "Object")
KEYS: Final = ("a", "b", "c", "d")
PLAIN: Final = ("Plain", "Plain", "Fleeting", "Brittle", "Doomed")
NAMES: Final = ("x", "y", "z")


def pack(script: Script, nonce: str) -> bytes:
    """The request body. Its size is either well below or well above what is stored inline."""
    text = json.dumps({"nonce": nonce, "steps": script, "pad": ""})
    if len(text) > 350:
        text = json.dumps({"nonce": nonce, "steps": script, "pad": "." * max(0, 900 - len(text))})
    return text.encode()


def unpack(body: bytes) -> tuple[str, Script]:
    content = json.loads(body)
    return content["nonce"], content["steps"]


class Author:
    """Draws scripts. Shared handlers never write, nobody awaits a handler of a key that it holds itself: that would wait for ever."""

    def __init__(self, random: Random, *, operated: bool = False) -> None:
        """operated: with what only operators' worlds can serve."""
        self.random = random
        self._operated = operated
        self._workflows = 0

    def target(self) -> Target:
        random = self.random
        kind = random.random()
        if kind < 0.4:
            return random.choice(PLAIN), "run", None
        if kind < 0.75:
            return random.choice(OBJECTS), "write", random.choice(KEYS)
        if kind < 0.85:
            return random.choice(OBJECTS), "read", random.choice(KEYS)
        self._workflows += 1
        return "Flow", "run", f"w{self._workflows}-{random.randrange(1000)}"

    def script(self, target: Target, depth: int = 0, floor: tuple[str, str] = ("", "")) -> Script:
        """floor: the highest key that somebody holds who waits for this handler."""
        service, handler, key = target
        if handler == "write" and key is not None:
            floor = max(floor, (service, key))
        steps: Script = []
        for _ in range(self.random.choice([0, 1, 1, 2, 3] if depth else [1, 2, 3, 4, 5])):
            steps.append(self._step(service, handler, key, depth, floor))
        if self.random.random() < 0.05:
            steps.append(["terminal"])
        return steps

    def _step(self, service: str, handler: str, key: str | None, depth: int, floor: tuple[str, str]) -> Step:
        random = self.random
        kinds = ["run", "run", "sleep"]
        if depth < 2:
            kinds += ["send", "awake", "signal", "attach", "output", "cancelled", "call", "call", "race", "twice"]
        if key is not None and service != "Flow":
            kinds += ["get", "lazyget", "keys"] + (["set", "set", "set", "clear", "clearall"] if handler == "write" else [])
        if service == "Flow":
            kinds += ["promise"] * 3 + (["set", "get", "ask"] if depth < 2 else [])
        if self._operated:
            kinds += ["outside", "later"] if depth < 2 else []
        kind = random.choice(kinds)
        match kind:
            case "run":
                return ["run", random.choice([0, 5, 150, 900])]
            case "sleep":
                return ["sleep", random.choice([0, 30, 400, 1_500, 6_000])]
            case "call" | "twice":
                return [kind, *self._callee(depth, floor, plain=kind == "twice")]
            case "race":
                return ["race", random.choice([20, 2_000]), *self._callee(depth, floor)]
            case "send":
                target = self.target()
                return ["send", *target, random.choice([0, 0, 500, 5_000]), self.script(target, depth + 1)]
            case "later":
                target = ("Plain", "run", None)
                return ["send", *target, random.choice([9_500, 14_000]), self.script(target, depth + 1)]
            case "outside":
                return ["outside", random.choice("uvw")]
            case "attach" | "output":
                target = ("Plain", "run", None)
                return [kind, *target, random.choice([0, 300]), self.script(target, depth + 1, floor)]
            case "awake" | "signal" | "cancelled":
                return [kind, random.randrange(3), random.choice([0, 200])]
            case "set":
                return ["set", random.choice(NAMES), random.choice([0, 20, 80, 900])]
            case "get" | "lazyget" | "clear":
                return [kind, random.choice(NAMES)]
            case "promise":
                return ["promise", random.choice(["peek", "complete", "complete", "round"]), random.choice("xxxy")]
            case _:
                return [kind]

    def _callee(self, depth: int, floor: tuple[str, str], *, plain: bool = False) -> list[Any]:
        """Somebody whose end is awaited: keys only in ascending order, so that no circle of waiting forms."""
        options: list[Target] = [("Plain", "run", None), ("Fleeting", "run", None)]
        if not plain:
            options += [(name, "read", other) for name in OBJECTS for other in KEYS[:2]]
            options += [(name, "write", other) for name in OBJECTS for other in KEYS if (name, other) > floor]
        target = self.random.choice(options)
        return [*target, self.script(target, depth + 1, floor)]

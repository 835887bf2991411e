"""Whether calls can be made as they are written, in the environment of an example: `callable.py SERVED '[[TARGET, BODY], ...]'`."""

import json
import sys

from holdfast_runtime.app.loading import load_services


def main() -> None:
    handlers = {(service.name, handler.name): handler for service in load_services([sys.argv[1]]) for handler in service.handlers.values()}
    for target, body in json.loads(sys.argv[2]):
        service, *key, name = target.split("/")
        handler = handlers.get((service, name))
        assert handler is not None, f"{target} is none of {sorted(map('/'.join, handlers))}"
        assert bool(key) == (handler.service_type != "SERVICE"), f"{target}: a key is needed by objects and workflows, and by nothing else"
        assert bool(body) == (handler.takes_argument and not (handler.has_default and not body)), f"{target} takes an argument or none"
        if body and "$" not in body:
            handler.input.deserialize(body.encode())


main()

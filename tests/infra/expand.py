"""Expands SAM templates as CloudFormation would, in the environment of the linter: `expand.py template.yaml ...`.

Standard input: {name: {parameter: value}}; standard output: {name: expanded template}, a line for each template. Local folders of code
become a made-up address in S3, because the transform takes nothing else.
"""

import json
import os
import sys
from typing import Any

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

from cfnlint.decode import decode
from samtranslator.translator.transform import transform

PLACEHOLDER = "s3://placeholder/code.zip"


class NoManagedPolicies:
    """Looks managed policies up by their bare names; ours are whole ARNs."""

    def load(self) -> dict[str, str]:
        return {}


def expanded(source: dict[str, Any], parameters: dict[str, str]) -> Any:
    template = json.loads(json.dumps(source))
    globals_ = template.get("Globals", {}).values()
    for properties in [*globals_, *(resource.get("Properties", {}) for resource in template["Resources"].values())]:
        if isinstance(properties.get("CodeUri"), str) and not properties["CodeUri"].startswith("s3://"):
            properties["CodeUri"] = PLACEHOLDER
    defaults = {name: value["Default"] for name, value in template.get("Parameters", {}).items() if "Default" in value}
    return transform(template, {"AWS::Region": "us-east-1", **defaults, **parameters}, NoManagedPolicies())


def main() -> None:
    asked = json.load(sys.stdin)
    for path in sys.argv[1:]:
        source, problems = decode(path)
        if problems:
            sys.exit("\n".join(map(str, problems)))
        print(json.dumps({name: expanded(source, given) for name, given in asked.items()}))


main()

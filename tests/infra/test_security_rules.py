"""checkov's rules on the template: what it finds is either mended or answered here."""

from __future__ import annotations

import json
import subprocess
from typing import Final

from tests.infra.conftest import ROOT, tool
from tests.infra.long import wanted

pytestmark = wanted
# rule -> why it is left as it is.
ACCEPTED: Final = {
    "CKV_AWS_2": "plain HTTP is only possible at an internal load balancer (rule NeverInClear)",
    "CKV_AWS_103": "the same",
    "CKV_AWS_18": "every object is written and read by the coordinator, which logs",
    "CKV_AWS_21": "objects are never overwritten; deleted ones are not to be kept",
    "CKV_AWS_23": "every rule has one; checkov does not look into Fn::If",
    "CKV_AWS_26": "alarms cannot use the key of AWS for topics; they say nothing secret, and go out as mails in clear",
    "CKV_AWS_65": "Container Insights cost more than the default coordinator",
    "CKV_AWS_115": "reserved concurrency is refused in small accounts",
    "CKV_AWS_116": "functions are called synchronously; a failure is the caller's to see",
    "CKV_AWS_117": "functions reach AWS services only, by IAM; in a VPC they would need endpoints",
    "CKV_AWS_119": "KmsKeyArn brings one's own key",
    "CKV_AWS_173": "variables are names of resources, no secrets",
}


def test_every_finding_has_an_answer() -> None:
    checkov = ["checkov", "-f", "template.yaml", "--framework", "cloudformation", "-o", "json", "--quiet", "--skip-download"]
    command = [tool("security", "python"), tool("security", "checkov"), *checkov[1:]]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 0
    assert report["summary"]["parsing_errors"] == 0
    assert {found["check_id"] for found in report["results"]["failed_checks"]} == ACCEPTED.keys()

"""The only place with side effects. Replace these bodies by calls of your mail provider (with boto3: `ses.send_email`).

A mail that was sent but not recorded as sent, because the process died in between, is sent again. That does no harm here.
"""

import os
from urllib.parse import urlencode

# Where web.py answers.
PAGE_URL = os.environ.get("PAGE_URL", "http://127.0.0.1:8000/")


def send_mail(to: str, text: str) -> None:
    print(f"mail to {to}: {text}", flush=True)


def send_request(to: str, text: str, request_id: str, link: str) -> None:
    """A mail with a link to the page on which `to` decides."""
    send_mail(to, f"{text}\n  {PAGE_URL}?{urlencode({'request': request_id, 'link': link, 'by': to})}")

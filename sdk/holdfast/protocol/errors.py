"""The one error of the wire core: the peer sent something the protocol does not allow.

Rules: the message says what was expected, what was found and what to do; the code is the one reported to the
peer or kept as the failure of the attempt (service protocol §3.7).
"""

from typing import Final

JOURNAL_MISMATCH: Final = 570
PROTOCOL_VIOLATION: Final = 571
UNSUPPORTED_FEATURE: Final = 573


class ProtocolError(Exception):
    """The peer broke the protocol; retrying helps only when the peer changes.

    `code`: 571 protocol violation (default), 570 journal mismatch, 573 unsupported feature; subclasses for
    identifiers and manifests use the HTTP status their surface answers with.
    """

    def __init__(self, message: str, *, code: int = PROTOCOL_VIOLATION) -> None:
        super().__init__(message)
        self.code = code

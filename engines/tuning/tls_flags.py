"""Encryption of an engine that is started with it: vLLM and SGLang hand these flags to uvicorn.

Source: uvicorn 0.38, config.py: a certificate or a key turns encryption on, and the key may stand
in the file of the certificate.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmtop import UsageError
from llmtop.engines.tuning.argv_parser import last_value

CERTIFICATE, KEY = "--ssl-certfile", "--ssl-keyfile"
CLIENTS = "--ssl-cert-reqs"  # a number of Python's ssl module: 0 none, 1 optional, 2 required


def certificate_of(args: Sequence[str]) -> str:
    """The file of the certificate that the engine will show; "" when it serves plain HTTP.

    UsageError for what cannot serve, and for what llmtop could not watch.
    """
    certificate, key = last_value(args, CERTIFICATE), last_value(args, KEY)
    if certificate is None and key is None:
        return ""
    if not certificate:
        raise UsageError(f"{KEY} needs {CERTIFICATE} beside it", "name the certificate's file")
    if last_value(args, CLIENTS) == "2":
        raise UsageError(
            f"with {CLIENTS} 2 the engine wants a certificate of its clients, and llmtop has none",
            f"leave {CLIENTS} out, or set it to 1",
        )
    return certificate

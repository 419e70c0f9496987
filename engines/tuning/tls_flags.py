"""TLS flags of an engine: vLLM and SGLang pass them to uvicorn.

Source: uvicorn 0.38, config.py: a certificate or a key enables TLS, and the key may be in the
certificate's file.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmtop import UsageError
from llmtop.engines.tuning.argv_parser import last_value

CERTIFICATE, KEY = "--ssl-certfile", "--ssl-keyfile"
CLIENTS = "--ssl-cert-reqs"  # a number of Python's ssl module: 0 none, 1 optional, 2 required


def certificate_of(args: Sequence[str]) -> str:
    """The engine's certificate file; "" for plain HTTP.

    UsageError for a key without a certificate, and if the engine requires client certificates.
    """
    certificate, key = last_value(args, CERTIFICATE), last_value(args, KEY)
    if certificate is None and key is None:
        return ""
    if not certificate:
        raise UsageError(f"{KEY} needs {CERTIFICATE} too", "give the certificate's file")
    if last_value(args, CLIENTS) == "2":
        raise UsageError(
            f"with {CLIENTS} 2 the engine requires client certificates, and llmtop has none",
            f"omit {CLIENTS}, or set it to 1",
        )
    return certificate

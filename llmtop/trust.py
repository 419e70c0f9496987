"""Whom an encrypted connection believes: one place for metrics, readiness, options and load.

By default the authorities of this system. A file of other ones can be named (``--cacert``, or the
variable SSL_CERT_FILE). An engine that llmtop started itself shows the certificate that it was
started with: then exactly that one is believed, whatever name is in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

from llmtop import LlmtopError

if TYPE_CHECKING:
    import ssl

_CERTIFICATE = re.compile(
    rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----.+?-----END (?:TRUSTED )?CERTIFICATE-----", re.DOTALL
)
_LARGEST = 4 * 1024 * 1024  # bytes of a file of certificates; those of all public ones have 300 KB
REMEDY = "give its certificate or its authority's: --cacert FILE, or the variable SSL_CERT_FILE"

# What OpenSSL says, however it is wrapped: (words, what it means, what to do).
_FAULTS = (
    (("self-signed certificate in", "self signed certificate in"),
     "its certificate is not trusted (a private authority signed it)", REMEDY),
    (("self-signed certificate", "self signed certificate"),
     "its certificate is not trusted (self-signed)", REMEDY),
    (("unable to get local issuer", "unable to get issuer", "unable to verify the first"),
     "its certificate is not trusted (its issuer is not known)", REMEDY),
    (("certificate has expired",), "its certificate has expired", "renew it on the server"),
    (("certificate is not yet valid",), "its certificate is not valid yet",
     "check the clocks of both machines"),
    (("ostname mismatch", "IP address mismatch", "doesn't match", "is not valid for"),
     "its certificate is for another name", "use the name that is in it, or issue it for this one"),
    (("CERTIFICATE_REQUIRED", "certificate required"),
     "it requires a client certificate, and llmtop has none",
     "let it accept clients without a certificate"),
    (("CERTIFICATE_VERIFY_FAILED", "certificate verify failed"),
     "its certificate is not trusted", REMEDY),
    (("WRONG_VERSION_NUMBER", "wrong version number", "RECORD_LAYER_FAILURE", "HTTP_REQUEST",
      "UNKNOWN_PROTOCOL", "packet length too long"),
     "it does not speak TLS", "is it http rather than https?"),
)  # fmt: skip


class TrustError(LlmtopError):
    """A file of certificates cannot be used."""


class ClientCertificateError(TrustError):
    """The certificate that llmtop shall show, or its key, cannot be used."""


class Trust(Struct, frozen=True):
    """Whom connections to one server believe.

    authorities: a file of certificates, and folder a folder of them, in place of the system's; ""
    for the system's. pinned: a file whose first certificate alone is believed, under any name; ""
    for none. certificate, key: files of the certificate that llmtop shows, "" for none.
    """

    authorities: str = ""
    folder: str = ""
    pinned: str = ""
    certificate: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """The settings of a connection. TrustError when a file cannot be read or holds none."""
        file = self.pinned or self.authorities
        try:
            changed = os.stat(file).st_mtime_ns if file else 0
        except (OSError, ValueError) as error:
            raise _unreadable(file, error) from error
        return _context(self, changed)


SYSTEM = Trust()  # the authorities of this system


class Trusts:
    """Whom to believe, by URL. authorities, folder: see ``Trust``."""

    def __init__(self, authorities: str = "", folder: str = "") -> None:
        self._usual = Trust(authorities, folder)
        self._pinned: dict[tuple[str, int | None], Trust] = {}

    def pin(self, url: str, certificate: str) -> None:
        """Believe the first certificate of this file, and no other, at the server of this URL.

        An empty name takes that back.
        """
        place = _place(url)
        if certificate:
            self._pinned[place] = Trust(pinned=certificate)
        else:
            self._pinned.pop(place, None)

    def of(self, url: str) -> Trust:
        """Whom connections to this URL believe; of no account where they are not encrypted."""
        return self._pinned.get(_place(url), self._usual)


def from_environment(environ: Mapping[str, str], cacert: str = "") -> Trusts:
    """As the variables SSL_CERT_FILE and SSL_CERT_DIR say, unless a file is named."""
    if cacert:
        return Trusts(cacert)
    return Trusts(environ.get("SSL_CERT_FILE", ""), environ.get("SSL_CERT_DIR", ""))


def tls_fault(words: str) -> tuple[str, str] | None:
    """What a failed encrypted connection means, and what to do; None when it is something else.

    words: the error's text, however it was wrapped.
    """
    for signs, meaning, remedy in _FAULTS:
        if any(sign in words for sign in signs):
            return meaning, remedy
    if "SSL" in words or "TLS" in words:
        return "no safe connection can be made", "is it http rather than https?"
    return None


def _place(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        return (parts.hostname or "").lower(), parts.port or (
            443 if parts.scheme == "https" else 80
        )
    except ValueError:
        return "", None


@lru_cache(maxsize=64)
def _context(trust: Trust, changed: int) -> ssl.SSLContext:
    """changed: when its file was, so that a renewed certificate is read again."""
    context = _believing(trust)
    if trust.certificate:
        try:
            context.load_cert_chain(trust.certificate, trust.key or None, password=lambda: "")
        except (OSError, ValueError) as error:
            raise ClientCertificateError(
                f"the certificate in {trust.certificate} and its key cannot be used",
                "both are PEM files, the key without a password",
            ) from error
    return context


def _believing(trust: Trust) -> ssl.SSLContext:
    import ssl  # 15 ms that plain HTTP has no use for

    if not trust.pinned and not trust.authorities and not trust.folder:
        import certifi

        context = ssl.create_default_context()  # the system's, where it has any
        context.load_verify_locations(certifi.where())
        return context
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # A server's own certificate may be named as well as its authority's.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    file = trust.pinned or trust.authorities
    try:
        if trust.pinned:
            context.check_hostname = False  # it is this very certificate
            context.load_verify_locations(cadata=_first(trust.pinned))
        else:
            context.load_verify_locations(trust.authorities or None, trust.folder or None)
    except (OSError, ValueError) as error:
        raise _unreadable(file or trust.folder, error) from error
    return context


def _first(path: str) -> str:
    with open(path, "rb") as file:
        found = _CERTIFICATE.search(file.read(_LARGEST))
    if found is None:
        raise ValueError("it holds no certificate")
    return found[0].decode("ascii")


def _unreadable(path: str, error: Exception) -> TrustError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if "SSL" in type(error).__name__ or not why:
        why = "it holds no certificate"
    return TrustError(
        f"the certificates in {path} cannot be used: {why.lower()}",
        "name a file in PEM format: --cacert FILE, or the variable SSL_CERT_FILE",
    )

"""TLS: contexts for mutual authentication, from files; and what it means when a handshake fails."""

from __future__ import annotations

import ssl
from os import PathLike, fspath
from typing import Final, NoReturn

from ..errors import ConfigurationError

__all__ = ["TlsFailed", "tls_contexts", "tls_failure"]


class TlsFailed(ConnectionError):
    """There is no TLS with `peer`, an address; `str()` says of it what is wrong and what to do."""

    def __init__(self, peer: str, why: str) -> None:
        super().__init__(why)
        self.peer = peer


_NO_TLS: Final = frozenset(
    (
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "HTTPS_PROXY_REQUEST",
        "UNKNOWN_PROTOCOL",
        "RECORD_LAYER_FAILURE",
        "PACKET_LENGTH_TOO_LONG",
        "BAD_RECORD_TYPE",
    )
)


def tls_failure(peer: str, error: Exception | None) -> TlsFailed:
    """The same, in words of this library."""
    return TlsFailed(peer, _why(error))


def _why(error: Exception | None) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"shows a certificate that is not accepted ({error.verify_message}): give all certificates of one authority"
        case ssl.SSLError(reason="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
            return "shows no certificate: give it one, in tls="
        case ssl.SSLError(reason=str(reason)) if reason in _NO_TLS:
            return "does not speak TLS: give all nodes tls=, or none"
        case ssl.SSLError(reason=str(reason)) if "ALERT" in reason:
            said = reason.partition("ALERT_")[2].replace("_", " ").lower()
            return f"does not accept this certificate ({said}): give all certificates of one authority"
        case ssl.SSLError():
            return f"tls failed ({error.reason or error})"
        case TimeoutError() | ConnectionAbortedError():
            return "did not finish the TLS handshake in time"
        case _:
            return "ended the TLS handshake: does it use tls, and accept this certificate?"


def tls_contexts(
    certificate: str | PathLike[str], key: str | PathLike[str], authority: str | PathLike[str]
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server, client) contexts of TLS 1.3: for a node's `tls`; the second one for a client's.

    certificate, key: PEM files of this process; a node's certificate names `node-<id>` as a DNS name.
    authority: PEM file of the authority that signed all of them; who has no certificate of it is turned away.
    Raises ConfigurationError.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Names are ids, not hosts: they are checked in the handshake, against the id that was asked for.
    client.check_hostname = False

    def has_no_password() -> NoReturn:
        # OpenSSL would ask for one at the terminal, and a service would wait there.
        raise ConfigurationError(f"tls: the key {fspath(key)} is encrypted: give one without a password")

    for name, path in (("certificate", certificate), ("key", key), ("authority", authority)):
        _check_readable(name, path)
    _load_authority(server, "authority", authority)
    _load_authority(client, "authority", authority)
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(certificate, key, has_no_password)
        except ssl.SSLError as error:
            # It does not say which of both files it means; a certificate alone can be tried as an authority's.
            _load_authority(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "certificate", certificate)
            if error.reason == "KEY_VALUES_MISMATCH":
                raise ConfigurationError(
                    f"tls: the key {fspath(key)} is not that of the certificate {fspath(certificate)}: give both of one pair"
                ) from error
            raise ConfigurationError(_no_pem("key", key)) from error
    return server, client


def _check_readable(name: str, path: str | PathLike[str]) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"tls: the {name} {fspath(path)} cannot be read: {error.strerror or error}: give a PEM file"
        ) from error


def _load_authority(context: ssl.SSLContext, name: str, path: str | PathLike[str]) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigurationError(_no_pem(name, path)) from error


def _no_pem(name: str, path: str | PathLike[str]) -> str:
    return f"tls: the {name} {fspath(path)} holds none that can be used: give a PEM file"

"""Contexts for mutual TLS, from files."""

from __future__ import annotations

import ssl
from os import PathLike

from ..errors import ConfigurationError

__all__ = ["tls_contexts"]


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
    try:
        for context in (server, client):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_cert_chain(certificate, key)
            context.load_verify_locations(authority)
    except OSError as error:
        raise ConfigurationError(
            f"tls: {error.strerror or error}: give PEM files for the certificate ({certificate}), "
            f"its key ({key}) and the authority ({authority})"
        ) from error
    return server, client

"""Describes why a server could not be reached: briefly, and without its address, which is a worker's setting."""

import os
import socket
import ssl

import aiohttp

# https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_EXPIRED, _OTHER_HOST, _OTHER_ADDRESS = 10, 62, 64
_HALF_ANSWERS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ServerDisconnectedError, "it closed the connection without an answer"),
    (aiohttp.ClientPayloadError, "its answer broke off"),
    (aiohttp.ClientResponseError, "its answer is not valid HTTP"),
)
_CERTIFICATES = {
    _EXPIRED: "its certificate has expired",
    _OTHER_HOST: "its certificate is for another name",
    _OTHER_ADDRESS: "its certificate is for another address",
}


def reason_of(error: BaseException) -> str:
    """Return what happened, without the errors' own texts, which contain the address."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
        found = reason_of(_cause(error))
        return found if isinstance(error, aiohttp.ClientSSLError) else f"no connection ({found})"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _CERTIFICATES.get(error.verify_code, "its certificate is not trusted; name its authority in ca_file")
    if isinstance(error, ssl.SSLError):
        return f"no TLS connection ({error.reason or 'it ended'})"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    for kind, told in _HALF_ANSWERS:
        if isinstance(error, kind):
            return told
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__


def _cause(error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError) -> BaseException:
    return error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error.os_error

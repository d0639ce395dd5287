"""What an address may do: by which protocols, checked by whose certificate, and nowhere else.

FFmpeg opens it. Sent on to another server it would go there, and hand over the password to whoever
asks: of HTTP it can be told not to; a server of RTSP is asked beforehand whether it sends on.
"""

import re
import socket
import ssl
import time
from urllib.parse import urljoin, urlsplit

from src.errors import UserError

# What may be reached by an address.
PROTOCOLS = {
    "rtsp": "rtsp,rtp,tcp",
    "rtsps": "rtsp,rtsps,rtp,tls,tcp",
    "http": "http,tcp",
    "https": "https,tls,tcp",
}
PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
# Containers that name no other address.
_FORMATS = "mpegts,mov,matroska,flv,mpjpeg,mjpeg,avi,mpeg,h264,hevc,asf,ogg"
_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", re.DOTALL)
_HEAD = 16_384  # bytes of an answer's head


def protocol_of(text: str) -> str:
    """Return the protocol of an address, in small letters; "" of what is none."""
    found = _ADDRESS.fullmatch(text)
    return "" if found is None else found[1].lower()


def masked(text: str) -> str:
    """Return an address without user, password and what it asks; a file's name as it is."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return text
    # A password may hold any of `@/?#`: all up to the last @ may be one.
    before, at, rest = found[2].rpartition("@")
    place, asks, _ = rest.partition("?")
    hidden = "***@" if before or at else ""
    return f"{found[1]}://{hidden}{place}{'?***' if asks else ''}"


def is_secured(protocol: str) -> bool:
    """Tell whether TLS is spoken."""
    return "tls" in PROTOCOLS.get(protocol, "").split(",")


def options_of(protocol: str, *, insecure: bool) -> dict[str, str]:
    """Return how FFmpeg opens it.

    Certificates are checked against those that this machine trusts, or those of `SSL_CERT_FILE`;
    `insecure`: not at all.
    """
    options = {"protocol_whitelist": PROTOCOLS[protocol]}
    if protocol.startswith("rtsp"):
        options |= {"rtsp_transport": "tcp"}
    else:
        options |= {"format_whitelist": _FORMATS, "max_redirects": "0"}
    if is_secured(protocol) and not insecure:
        trusted = _trusted()
        options |= {"tls_verify": "1"} | ({"ca_file": trusted} if trusted else {})
    return options


def check_answer(text: str, *, insecure: bool, patience: float) -> None:
    """Ask an address for itself, without user and password, and only look at what it answers.

    Args:
        text: the address.
        insecure: its certificate is not looked at.
        patience: seconds in which it must answer.

    Raises:
        UserError: it sends on to elsewhere, or its certificate is not trusted. Whatever else is
            wrong is FFmpeg's to find.
    """
    protocol, name = protocol_of(text), masked(text)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port or PORTS[protocol]
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        asked = f"GET {path} HTTP/1.0\r\nHost: {place}\r\n\r\n"
        if protocol.startswith("rtsp"):
            asked = f"DESCRIBE {protocol}://{place}{path} RTSP/1.0\r\nCSeq: 1\r\n\r\n"
        with socket.create_connection((host, port), patience) as bare:
            bare.settimeout(patience)
            stream = bare
            if is_secured(protocol):
                context = ssl.create_default_context(cafile=_trusted())
                if insecure:
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                stream = context.wrap_socket(bare, server_hostname=host)
            stream.sendall(asked.encode())
            head, until = b"", time.monotonic() + patience
            while b"\r\n\r\n" not in head and len(head) < _HEAD and time.monotonic() < until:
                if not (piece := stream.recv(4096)):
                    break
                head += piece
    except ssl.SSLCertVerificationError as error:
        raise UserError(
            f"{name}: its certificate is not trusted ({error.verify_message}); one of your own: "
            "SSL_CERT_FILE=FILE.pem before the command. --insecure watches it all the same, and "
            "whoever is between can read the password and show other pictures"
        ) from None
    except (OSError, ValueError):
        return
    if (found := re.match(rb"\S+ 3\d\d\b", head)) is None:
        return
    found = re.search(rb"\r?\nlocation:[ \t]*(\S+)", head, re.IGNORECASE)
    where = masked(urljoin(text, found[1].decode("utf-8", "replace"))) if found else "elsewhere"
    raise UserError(
        f"{name}: it sends on to {where}, which is not followed: name that one yourself"
    )


def _trusted() -> str | None:
    """Return the file of the certificates that this machine trusts; None where it has no file."""
    return ssl.get_default_verify_paths().cafile

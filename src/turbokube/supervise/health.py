"""Whether a component that was started does its work yet."""

from __future__ import annotations

import http.client
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Health:
    """One question to a component: GET `url`, whose scheme is http, https or tcp (a connection is enough).

    Only the status counts: /readyz of an API server names checks that are "ok" long before it is ready.
    """

    url: str
    status: int = 200
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None

    def check(self, timeout: float = 2.0) -> str:
        """Ask once: empty when healthy, else why not."""
        url = urlsplit(self.url)
        assert url.hostname is not None
        address = (url.hostname, url.port or {"http": 80, "https": 443}[url.scheme])
        try:
            if url.scheme == "tcp":
                socket.create_connection(address, timeout).close()
                return ""
            connection = (
                http.client.HTTPSConnection(*address, timeout=timeout, context=self._context())
                if url.scheme == "https"
                else http.client.HTTPConnection(*address, timeout=timeout)
            )
            try:
                connection.request("GET", url.path or "/")
                answer = connection.getresponse()
                body = answer.read(4096).decode(errors="replace")
            finally:
                connection.close()
        # a certificate that its process has not written yet is an OSError, as is a refused connection
        except (OSError, http.client.HTTPException) as error:
            return f"{self.url}: {error}"
        if answer.status == self.status:
            return ""
        failed = [line for line in body.splitlines() if line.startswith("[-]")] or body.splitlines()[:1]
        return f"{self.url}: status {answer.status} {' '.join(failed)}".strip()

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.certificate_file:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context

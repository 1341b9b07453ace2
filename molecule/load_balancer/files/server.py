"""Serve /readyz by TLS on port 6443, as an API server that is ready does."""

from __future__ import annotations

import http.server
import ssl

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/root/server.crt", "/root/server.pem")
with http.server.ThreadingHTTPServer(("", 6443), http.server.SimpleHTTPRequestHandler) as server:
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()

"""The shop's slow partners: bank, supplier, mail provider and carrier, in one small server.

python -m demo.partners --host 127.0.0.1 --port 0
"""

import argparse
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_ANSWER_AFTER_S = {
    "/bank/charge": 0.06,
    "/mail/receipts": 0.05,
    "/supplier/stock": 0.12,
    "/carrier/quote": 0.06,
}


class PartnersHandler(BaseHTTPRequestHandler):
    """Answers GET and POST alike, after as long as that partner needs."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or head and body, written apart, take 40 ms more: the peer's delayed ACK

    def do_GET(self) -> None:
        """Wait, then answer; 404 for who is no partner."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        wait_s = _ANSWER_AFTER_S.get(self.path.partition("?")[0])
        if wait_s is None:
            self.send_error(404)
            return
        time.sleep(wait_s)
        body = json.dumps({"rake": 1_000_000} if self.path == "/supplier/stock" else {"state": "done"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: the demo's own lines matter."""


class PartnersServer(ThreadingHTTPServer):
    """A thread per connection, so that one slow answer does not wait for another."""

    daemon_threads = True
    request_queue_size = 128

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.server_address[0]}:{self.server_address[1]}"


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    with PartnersServer((arguments.host, arguments.port), PartnersHandler) as server:
        print(f"listening on {server.url}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()

"""An answer that has not changed is not sent again, one that has is; and nobody else may keep it."""

from tests.support.collector import StreamPeer, make_identity, make_report, make_site, run_collector

from aiocop_wire import Define, SiteDelta


def test_only_what_changed_is_sent_again(tmp_path):
    window = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-01T01:00:00Z"}
    inside_ms = 1_767_225_660_000  # one minute into it
    with run_collector(tmp_path) as collector, StreamPeer(collector.socket_path) as agent:

        def ask(**headers):
            return collector.http.get("/hotspots", params=window, headers=headers)

        empty = ask()
        assert empty.headers["cache-control"] == "private, no-cache"
        assert empty.headers["vary"] == "Authorization"
        tag = empty.headers["etag"]
        agent.greet(make_identity())
        agent.send(Define((make_site(1),)), make_report(1, SiteDelta(1, 1, 1, 90, 90)))  # another time
        agent.wait_for_ack(1)
        again = ask(**{"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert "content-type" not in again.headers
        assert ask(**{"If-None-Match": '"other"'}).json() == empty.json()
        agent.send(make_report(2, SiteDelta(1, 1, 1, 90, 90), started_at_ms=inside_ms))
        agent.wait_for_ack(2)
        changed = ask(**{"If-None-Match": tag})
        assert changed.status_code == 200
        assert changed.json()["total"] == 1
        assert changed.headers["etag"] != tag


def test_what_must_not_be_kept_says_so(tmp_path):
    with run_collector(tmp_path) as collector:
        for path in ("/healthz", "/readyz", "/metrics", "/hotspots?nonsense=1", "/hotspots/0000000000000000"):
            answer = collector.http.get(path)
            assert answer.headers["cache-control"] == "no-store", path
            assert "etag" not in answer.headers
        tag = collector.http.get("/openapi.json").headers["etag"]
        assert collector.http.get("/openapi.json", headers={"If-None-Match": tag}).status_code == 304

"""Which requests are answered: those of the page itself, and of programs other than browsers."""

import pytest

from common.page_requests import known_names, refusal

NAMES = known_names("127.0.0.1", ["Demo.Example.org"])
OWN = {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}


@pytest.mark.parametrize(
    "headers",
    [
        OWN,
        {"host": "127.0.0.1:7860"},  # a program
        {"host": "localhost:7860", "origin": "http://localhost:7860"},
        {"host": "LOCALHOST:7860", "origin": "http://localhost:7860"},
        {"host": "[::1]:7860", "origin": "http://[::1]:7860"},
        {"host": "192.168.1.5:7860", "origin": "http://192.168.1.5:7860"},
        {"host": "demo.example.org", "origin": "https://demo.example.org"},
        {"host": "demo.example.org:443", "origin": "https://demo.example.org"},
        {"host": "demo.example.org.", "sec-fetch-site": "none"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_requests_of_the_page(method, headers):
    assert refusal(method, "/gradio_api/queue/join", headers, NAMES) is None


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "not known as ''"),
        ({"host": "evil.test:7860"}, "not known as 'evil.test'; .* --known 'evil.test'"),
        ({"host": "evil.test", "origin": "http://evil.test"}, "not known as 'evil.test'"),
        ({"host": "localhost.evil.test"}, "not known as 'localhost.evil.test'"),
        ({"host": "127.0.0.1.evil.test"}, "not known as"),
        ({"host": "evil.test", "x-forwarded-host": "localhost"}, "not known as 'evil.test'"),
        (OWN | {"origin": "http://evil.test"}, "Another web site may not use"),
        (OWN | {"origin": "http://127.0.0.1:8000"}, "Another web site may not use"),
        (OWN | {"origin": "http://localhost:7860"}, "Another web site may not use"),
        (OWN | {"origin": "https://127.0.0.1:7860.evil.test"}, "Another web site may not use"),
        (OWN | {"origin": "null"}, "Another web site may not use"),
        (OWN | {"origin": ""}, "Another web site may not use"),
        (OWN | {"origin": "http://["}, "Another web site may not use"),
        (OWN | {"origin": "http://[::1"}, "Another web site may not use"),
        (OWN | {"origin": "http://[127.0.0.1]:7860"}, "Another web site may not use"),
        (OWN | {"origin": "http://\uff0f127.0.0.1:7860"}, "Another web site may not use"),
        (OWN | {"origin": "http:127.0.0.1:7860"}, "Another web site may not use"),
        (OWN | {"origin": "http"}, "Another web site may not use"),
        ({"host": "["}, r"not known as '\[\]'"),
        ({"host": "localhost:7860", "sec-fetch-site": "cross-site"}, "may only link"),
        ({"host": "localhost:7860", "sec-fetch-site": "same-site"}, "may only link"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_requests_of_others(method, headers, reason):
    refused = refusal(method, "/gradio_api/queue/join", headers, NAMES, option="--known")
    assert refused is not None
    assert refused.status == 403
    with pytest.raises(ValueError, match=reason):
        raise ValueError(refused.reason)


def test_links_to_the_page():
    link = {"host": "localhost:7860", "sec-fetch-site": "cross-site", "sec-fetch-dest": "document"}
    assert refusal("GET", "/", link, NAMES) is None
    assert refusal("POST", "/", link, NAMES) is not None
    assert refusal("GET", "/logout", link, NAMES) is not None
    assert refusal("GET", "/", link | {"sec-fetch-dest": "iframe"}, NAMES) is not None


def test_names_of_a_page_on_the_network(monkeypatch):
    """The machine's own name is known; other names that point here are not."""
    monkeypatch.setattr("socket.gethostname", lambda: "Anna")
    assert {"anna", "anna.local", "localhost"} <= known_names("0.0.0.0", [])
    assert "anna" not in known_names("127.0.0.1", [])
    assert refusal("GET", "/", {"host": "anna:7860"}, known_names("0.0.0.0", [])) is None

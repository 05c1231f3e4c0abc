"""Which URLs are valid, which host they mean, and what is sent of them."""

import ipaddress
import re
import ssl
import string
from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.base.values.http_urls import InvalidUrl, follow, parse, read_host

pytestmark = pytest.mark.stateless

CONTEXT = ssl.create_default_context()
PRINTABLE = "".join(sorted(set(map(chr, range(0x21, 0x7F))) - set("#?\\")))
SEGMENTS = st.sampled_from(["", ".", "..", "%2f", "%2F", "%7Ex", "%zz", "%", "a+b", "<>", '{"a"}', "[^`|]", "a;b=c", "@:", "a:b"])
PATHS = st.lists(SEGMENTS | st.text(PRINTABLE, max_size=5), max_size=5).map(lambda parts: "".join(f"/{part}" for part in parts))
QUERIES = st.just("") | st.text(PRINTABLE + "?", max_size=20).map("?{}".format)


class TestTarget:
    @given(path=PATHS, query=QUERIES, fragment=st.just("") | st.text(PRINTABLE + "?#").map("#{}".format))
    def test_ascii_is_unchanged(self, path: str, query: str, fragment: str) -> None:
        assert parse(f"http://example.com{path}{query}{fragment}").target == (path or "/") + query

    @given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"], exclude_characters="#?\\")))
    def test_other_characters_become_percent_encoded_utf_8(self, text: str) -> None:
        # Given a path and a query with any characters
        target = parse(f"http://example.com/{text}?{text}").target

        # I expect those beyond ASCII to be encoded, and the others to be unchanged
        encoded = "".join(c if c.isascii() else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text)
        assert target == f"/{encoded}?{encoded}"

    @pytest.mark.parametrize(
        ("url", "target"),
        [
            ("http://h", "/"),
            ("http://h?", "/?"),
            ("http://h?a", "/?a"),
            ("http://h/?", "/?"),
            ("http://h#f?x", "/"),
            ("http://h//a//", "//a//"),
            ("http://h/a%2fb/%7Ex?sig=a%2bb%3d%7e", "/a%2fb/%7Ex?sig=a%2bb%3d%7e"),
            ("http://h/bucket/a/../b?x=1", "/bucket/a/../b?x=1"),
            ("http://h/a/./b?x", "/a/./b?x"),
            ("http://h/a?b=http://i/../c?d", "/a?b=http://i/../c?d"),
            ("http://h/é", "/%C3%A9"),
        ],
    )
    def test_examples(self, url: str, target: str) -> None:
        assert parse(url).target == target

    @pytest.mark.parametrize("character", [*map(chr, range(0x21)), *map(chr, range(0x7F, 0xA1)), "\\", "\u2028", "\u3000"])
    def test_characters_that_are_invalid_in_a_request_line_are_refused(self, character: str) -> None:
        for url in (f"http://h/a{character}b", f"http://h/{character}", f"{character}http://h/", f"http://h/?a{character}"):
            with pytest.raises(InvalidUrl):
                parse(url)


class TestHost:
    @pytest.mark.parametrize(
        ("host", "read"),
        [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com."),
            ("localhost", "localhost"),
            ("my_host.a-b.example", "my_host.a-b.example"),
            ("_srv.example", "_srv.example"),
            ("a" * 63 + ".example", "a" * 63 + ".example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("bu\u0308cher.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("my_host.bücher.example", "my_host.xn--bcher-kva.example"),
            ("faß.example", "xn--fa-hia.example"),  # transitional processing would make it fass.example
            ("名がドメイン.example", "xn--v8jxj3d1dzdz08w.example"),
            ("مثال.example", "xn--mgbh0fb.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("0x7F.1", "127.0.0.1"),
            ("0177.0.0.01", "127.0.0.1"),
            ("0", "0.0.0.0"),
            ("[::1]", "::1"),
            ("[0:0:0:0:0:0:0:1]", "::1"),
            ("[2001:DB8::A]", "2001:db8::a"),
        ],
    )
    def test_a_host_has_one_spelling(self, host: str, read: str) -> None:
        assert read_host(host) == read
        assert parse(f"http://{host}:8080/x").host == read

    @pytest.mark.parametrize(
        "host",
        [
            *("", ".", "..", ".a", "a..b", "a.b..", "-a.example", "a.-b", "a b", "a%20b", "a%2eb", "*.a", "a,b", "a'b", "a!b"),
            *("a" * 64, "a" * 64 + ".example", ".".join(["a" * 63] * 4), "ü" * 60 + ".example"),
            *("☕.example", "xn--ü.example", "=\u0338.example", "\u0301a.example", "ü-.example", "א1a.example"),
            *("１２７.0.0.1", "127。0。0。1", "example。com", "example．com", "example｡com", "ｅxample.com", "①.example"),
            *(
                "ﬁ.example",
                "\u212a.example",
                "a\u200db.example",
                "a℀b.example",
                "a\u00adb.example",
                "ü\u200b.example",
                "℡.example",
            ),
            *("256.1.1.1", "1.2.3.4.5", "08.1.1.1", "1.2.3.256", "4294967296", "0x", "0x1ffffffff", "example.1", "a.0x1"),
            *("[::1", "::1]", "::1", "[]", "[::1]a", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[v1.a]", "[127.0.0.1]", "[::1%]"),
        ],
        ids=ascii,
    )
    def test_an_invalid_host_is_refused(self, host: str) -> None:
        with pytest.raises(InvalidUrl):
            parse(f"http://{host}/")
        with pytest.raises(InvalidUrl):
            parse(f"https://user:password@{host}:443/")

    @given(st.ip_addresses(v=4), st.lists(st.sampled_from(["{}", "0{:o}", "0x{:x}", "0X{:X}"]), min_size=4, max_size=4))
    def test_every_notation_of_an_ipv4_address_is_that_address(self, address: ipaddress.IPv4Address, forms: list[str]) -> None:
        # Given an address of four parts, of two (the second of 24 bits) and of one
        a, b, c, d = address.packed
        parts = [[a, b, c, d], [a, int(address) & 0xFFFFFF], [int(address)]]

        # When each is written in decimal, octal or hexadecimal, I expect the same host
        for numbers in parts:
            written = ".".join(form.format(number) for form, number in zip(forms, numbers, strict=False))
            assert read_host(written) == str(address)

    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=70) | st.text("a1.-_üß☕。x", max_size=300))
    def test_an_accepted_host_is_valid_for_sockets_and_certificates(self, host: str) -> None:
        try:
            name = read_host(host)
        except InvalidUrl:
            return
        assert name.isascii()
        assert read_host(f"[{name}]" if ":" in name else name) == name  # reading it again changes nothing
        assert name.encode("idna").decode() == name  # as the socket and ssl modules do
        CONTEXT.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name.rstrip("."))


class TestRest:
    @pytest.mark.parametrize(("port", "number"), [("", 80), (":", 80), (":80", 80), (":0081", 81), (":65535", 65535)])
    def test_ports(self, port: str, number: int) -> None:
        assert parse(f"http://h{port}/").port == number

    @pytest.mark.parametrize("port", [":0", ":00", ":65536", ":x", ":-1", ":+1", ":1:2", ":８0", ":1_0", ":" + "9" * 2000])
    def test_bad_ports_are_refused(self, port: str) -> None:
        with pytest.raises(InvalidUrl):
            parse(f"http://h{port}/")

    @pytest.mark.parametrize("port", [22, 25, 53, 110, 143, 465, 587, 5060, 6667, 10080])
    def test_ports_of_other_protocols_are_refused(self, port: int) -> None:
        with pytest.raises(InvalidUrl, match="another protocol"):
            parse(f"https://h:00{port}/")
        with pytest.raises(InvalidUrl, match="another protocol"):
            follow("http://h/", f"http://h:{port}/")

    @pytest.mark.parametrize(
        "url", ["", "h", "//h/", "/h", "ftp://h/", "http:h", "http:/h", "http//h", "https:", " http://h", "http"]
    )
    def test_other_urls_are_refused(self, url: str) -> None:
        with pytest.raises(InvalidUrl):
            parse(url)

    def test_userinfo_ends_at_the_last_at_sign_and_is_not_in_the_repr(self) -> None:
        url = parse("https://user:p@ss@h/path?query")
        assert (url.userinfo, url.host) == ("user:p@ss", "h")
        assert not any(secret in repr(url) for secret in ("user", "p@ss", "path", "query"))

    def test_origin_and_root(self) -> None:
        url = parse("HTTPS://me@Example.COM./a?b#c")
        assert (url.origin, url.root) == ("https://example.com:443", "https://example.com.:443/")
        assert parse("http://[::1]/").origin == "http://[::1]:80"
        assert (url.authority, parse("http://[::1]:443/").authority) == ("example.com", "[::1]:443")


BASE = "http://me@a/b/c/d;p?q"


class TestFollow:
    @pytest.mark.parametrize(
        ("location", "url"),
        [
            # RFC 3986, 5.4
            *(("g", "/b/c/g"), ("./g", "/b/c/g"), ("g/", "/b/c/g/"), ("/g", "/g"), ("?y", "/b/c/d;p?y"), ("g?y", "/b/c/g?y")),
            *(("g;x", "/b/c/g;x"), (";x", "/b/c/;x"), ("", "/b/c/d;p?q"), (".", "/b/c/"), ("./", "/b/c/"), ("..", "/b/")),
            *(("../", "/b/"), ("../g", "/b/g"), ("../..", "/"), ("../../g", "/g"), ("../../../g", "/g"), ("g.", "/b/c/g.")),
            *(
                ("./../g", "/b/g"),
                ("./g/.", "/b/c/g/"),
                ("g/./h", "/b/c/g/h"),
                ("g/../h", "/b/c/h"),
                ("g?y/../x", "/b/c/g?y/../x"),
            ),
            *(("#s", "/b/c/d;p?q"), ("g#s", "/b/c/g"), ("g?y#s", "/b/c/g?y"), ("?", "/b/c/d;p?"), ("g?", "/b/c/g?")),
            # absolute paths are unchanged
            *(("/x/../y", "/x/../y"), ("/./x", "/./x"), ("/a%2fb/%7e?s=%2b", "/a%2fb/%7e?s=%2b")),
            # what is invalid in a request line
            *((" /g ", "/g"), ("/a b\\", "/a%20b%5C"), ("/\xe9", "/%E9"), ("/\xc3\xa9?\xc3\xa9", "/%C3%A9?%C3%A9")),
        ],
    )
    def test_paths(self, location: str, url: str) -> None:
        assert follow(BASE, location) == f"http://me@a{url}"

    @pytest.mark.parametrize(
        ("location", "url"),
        [
            ("//g", "http://g"),
            ("//g/x/../y?", "http://g/x/../y?"),
            ("https://g/x/../y?z#f", "https://g/x/../y?z"),
            ("HTTP://g?x", "HTTP://g?x"),
            ("http://b\xc3\xbccher.example/", "http://bücher.example/"),
        ],
    )
    def test_other_hosts(self, location: str, url: str) -> None:
        assert follow(BASE, location) == url

    @pytest.mark.parametrize(
        "location",
        [
            *(
                "ftp://g/",
                "file:///etc/passwd",
                "http://[",
                "//:0",
                "mailto:x",
                "http:g",
                "/a\0",
                "/a\tb",
                "http://\xe9.example/",
                "//",
            ),
            *("http://good.example\\@evil.example/", "http://a b/", "javascript:alert(1)"),
        ],
    )
    def test_invalid_locations_are_refused(self, location: str) -> None:
        with pytest.raises(InvalidUrl):
            follow(BASE, location)

    @given(base=PATHS, path=PATHS, query=QUERIES)
    def test_absolute_paths_are_unchanged(self, base: str, path: str, query: str) -> None:
        if path and not path.startswith("//"):
            assert follow(f"http://h{base}?q", path + query) == f"http://h{path}{query}"
        assert follow(f"http://h{base}?q", f"http://i{path}{query}") == f"http://i{path}{query}"

    @given(
        base=st.lists(st.text(string.ascii_letters, min_size=1), min_size=1).map(lambda parts: "/" + "/".join(parts)),
        path=st.lists(st.sampled_from([".", "..", "a", "b"]), min_size=1).map("/".join),
    )
    def test_relative_paths_are_resolved_like_urljoin(self, base: str, path: str) -> None:
        assert follow(f"http://h{base}", path) == urljoin(f"http://h{base}", path)

    @given(st.binary(min_size=1))
    def test_any_bytes_are_followed_or_refused(self, location: bytes) -> None:
        try:
            url = follow("http://h/", location.decode("latin-1"))
        except InvalidUrl:
            return
        assert re.fullmatch(r"/[!-\[\]-~]*", parse(url).target)

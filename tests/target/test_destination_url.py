"""Destination URLs: what they mean, what is refused, and that no key is ever shown."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mover.errors import OB_BACKUP_DEST_INVALID, ConfigError
from mover.target.url import FileDestination, ObjectDestination, parse_url, redact

SECRET = "sEcReT/+=value"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///mnt/nfs/backup", "/mnt/nfs/backup"),
        ("file:///mnt/nfs/backup/", "/mnt/nfs/backup"),
        ("file:////mnt//nfs/./backup", "/mnt/nfs/backup"),
        ("file://localhost/mnt", "/mnt"),
        ("file:///with%20space/%3F", "/with space/?"),
        ("file:///100%", "/100%"),
        ("file:///", "/"),
    ],
)
def test_file(url, path):
    assert parse_url(url) == FileDestination(path)


def test_file_url_round_trip():
    destination = FileDestination("/a b/c?d#e%41")
    assert parse_url(destination.url) == destination


def test_s3():
    url = "s3://bucket/some/pre%20fix/?endpoint=http://127.0.0.1:8333&profile=seaweedfs&region=eu-1&concurrency=9"
    found = parse_url(url)
    assert isinstance(found, ObjectDestination)
    assert (found.bucket, found.prefix, found.endpoint) == ("bucket", "some/pre fix", "http://127.0.0.1:8333")
    assert (found.profile.name, found.region, found.addressing) == ("seaweedfs", "eu-1", "path")
    assert found.concurrency == 9
    assert (found.access_id, found.access_key) == (None, None)
    assert found.url == url


def test_s3_without_endpoint_is_amazon():
    found = parse_url("s3://bucket")
    assert isinstance(found, ObjectDestination)
    assert (found.profile.name, found.endpoint, found.region, found.prefix) == ("aws", None, None, "")


@pytest.mark.parametrize(
    ("host", "endpoint", "region"),
    [
        ("oss-cn-hangzhou.aliyuncs.com", "https://s3.oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou"),
        ("oss-cn-x-internal.aliyuncs.com", "https://s3.oss-cn-x-internal.aliyuncs.com", "cn-x"),
        ("http://s3.oss-cn-x.aliyuncs.com:80", "http://s3.oss-cn-x.aliyuncs.com:80", "cn-x"),
    ],
)
def test_oss_as_oceanbase_writes_it(host, endpoint, region):
    found = parse_url(f"oss://bucket/dir/?host={host}&access_id=ID&access_key=a+b/c==")
    assert isinstance(found, ObjectDestination)
    assert (found.bucket, found.prefix, found.endpoint, found.region) == ("bucket", "dir", endpoint, region)
    assert (found.access_id, found.access_key) == ("ID", "a+b/c==")  # '+' and '=' are themselves, as in OceanBase
    assert (found.addressing, found.profile.device_type) == ("virtual", "OSS")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/mnt/nfs",
        "file://relative/path",
        "file:///a/../b",
        "file:///a?x=y",
        "ftp://host/dir",
        "cos://bucket/dir?host=x",
        "s3://",
        "s3:///prefix",
        "s3://bucket/a/../b",
        "s3://user:pass@bucket/prefix",
        "s3://bucket?profile=nothing",
        "s3://bucket?profile=minio",
        "s3://bucket?endpoint=ftp://host",
        "s3://bucket?endpoint=http://host:port",
        "s3://bucket?endpoint=http://host:99999",
        "s3://bucket?endpoint=http://[::1",
        "s3://bucket?endpoint=http://host/path",
        "s3://bucket?unknown=1",
        "s3://bucket?region",
        "s3://bucket?region=a&region=b",
        "s3://bucket?access_id=only",
        "s3://bucket?access_key=only",
        "s3://bucket?concurrency=0",
        "s3://bucket?concurrency=-5M",
        "s3://bucket?concurrency=lots",
        "s3://bucket?concurrency=0",
        "s3://bucket?addressing=maybe",
        "oss://bucket/dir",
        "oss://bucket/dir?host=backup.example.com",
        "cos://bucket/dir",
        "cos://bucket/dir?host=backup.example.com",
        "s3://bucket?ca=relative.pem",
        "s3://bucket?tls=1.1",
    ],
)
def test_bad_urls_name_the_reason_and_the_way_out(url):
    with pytest.raises(ConfigError) as caught:
        parse_url(url)
    assert caught.value.hint
    assert caught.value.code == OB_BACKUP_DEST_INVALID
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("cos.ap-guangzhou.myqcloud.com", "ap-guangzhou"),
        ("cos-internal.ap-guangzhou.tencentcos.cn", "ap-guangzhou"),
        ("cos.example.com&region=r", "r"),
    ],
)
def test_cos(host, region):
    found = parse_url(f"cos://bucket-125/dir?host={host}")
    assert (found.profile.name, found.region, found.addressing) == ("cos", region, "virtual")
    assert found.endpoint == f"https://{host.partition('&')[0]}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://b/p?access_key=S&region=r", "s3://b/p?access_key=***&region=r"),
        ("s3://b/p?access_key=S&T&region=r", "s3://b/p?access_key=***&***&region=r"),
        ("s3://b/p?acess_key=S", "s3://b/p?***"),
        ("s3://b/p?ACCESS_KEY=S", "s3://b/p?ACCESS_KEY=***"),
        ("s3://b/p?endpoint=http://u:S@h", "s3://b/p?endpoint=***"),
        ("mysql://user:S@host/db", "mysql://user:***@host/db"),
        ("mysql://user:S/S@S@host/db?charset=x", "mysql://user:***@host/db?***"),
        ("file:///a:b@c/d", "file:///a:b@c/d"),
        ("oceanbase://root@host:2881/?data_dir=/x", "oceanbase://root@host:2881/?data_dir=/x"),
        ("no url at all", "no url at all"),
    ],
)
def test_redact(url, shown):
    assert redact(url) == shown
    assert redact(shown) == shown


def test_no_representation_has_the_keys():
    url = f"s3://bkt/p?endpoint=http://h&access_id=MYACCESSID&access_key={SECRET}&session_token=tok{SECRET}"
    found = parse_url(url)
    assert found.access_key == SECRET
    for text in (repr(found), str(found), found.url, redact(url)):
        assert SECRET not in text and "MYACCESSID" not in text


def test_refusing_a_url_does_not_show_its_keys():
    for wrong in ("&endpoint=nonsense://x", "&frobnicate=1", "&region=a&region=b", "&concurrency=0"):
        with pytest.raises(ConfigError) as caught:
            parse_url(f"s3://bkt/p?access_id=MYACCESSID&access_key={SECRET}{wrong}")
        text = f"{caught.value} {caught.value.hint} {caught.value.as_json()} {caught.value!r}"
        assert SECRET not in text and "MYACCESSID" not in text


texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=30)
secrets = st.text(alphabet="abcXYZ019+/=&?#@:% ", min_size=1, max_size=20).map(lambda text: f"Q7Q{text}Q7Q")


@given(st.text(max_size=80) | texts.map(lambda text: f"s3://{text}") | texts.map(lambda text: f"file:///{text}"))
@example("s3://b?%")
@example("file:///\0")
def test_any_text_parses_or_is_refused(url):
    try:
        found = parse_url(url)
    except ConfigError:
        return
    assert parse_url(found.url) == found


@given(
    secrets,
    st.sampled_from(["access_key", "session_token", "access_id", "password", "Access_Key", "access%5Fkey"]),
    texts,
)
def test_no_piece_of_a_secret_survives_redaction(secret, key, prefix):
    for url in (
        f"s3://b/{prefix}?region=x&{key}={secret}&profile=aws",
        f"oss://b/p?{key}={secret}",
        f"mysql://user:{secret}@host/db",
    ):
        assert "Q7Q" not in redact(url).replace(prefix, "") or "Q7Q" in prefix


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40))
def test_any_secret_can_be_written_with_escapes(secret):
    from urllib.parse import quote

    found = parse_url(f"s3://bkt?access_id=i&access_key={quote(secret, safe='')}")
    assert found.access_key == secret

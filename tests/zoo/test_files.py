"""Reading what may come from anybody: ordinary files alone, within bounds, as plain values, each mistake a sentence."""

from __future__ import annotations

import os
import threading

import pytest

from zoo.errors import ZooError
from zoo.files import (
    atomic_write,
    check_writable,
    create_file,
    dump_yaml,
    locked,
    parse_json,
    parse_yaml,
    read_bytes,
    read_json,
    read_text,
    read_yaml,
    sha256_of,
    user_path,
    write_json,
)
from zoo.specs import MOST, check_integer, check_number, check_timesteps


def special(kind, folder):
    path = folder / "special"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "large":
        path.touch()
        os.truncate(path, 2**34)
    elif kind == "bytes":
        path.write_bytes(b'{"a": "\xff"}')
    elif kind == "nul":
        return "a\0b"
    return path


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "large", "nothing", "nul"])
@pytest.mark.parametrize("read", [lambda p: read_bytes(p, 2**20), read_text, read_json, read_yaml])
def test_only_ordinary_files_are_read(kind, read, tmp_path):
    """At once: a pipe is not waited for."""
    with pytest.raises(ZooError, match=r"read|no such file"):
        read(special(kind, tmp_path))


def test_special_files_have_no_checksum(tmp_path):
    with pytest.raises(ZooError, match="not a file"):
        sha256_of(special("device", tmp_path))


def test_text_is_utf8_whatever_the_locale(tmp_path):
    with pytest.raises(ZooError, match="not UTF-8"):
        read_json(special("bytes", tmp_path))
    write_json(tmp_path / "a.json", {"ä": "half \udcff"})
    assert '"ä": "half \\udcff"' in (tmp_path / "a.json").read_bytes().decode()
    with pytest.raises(ZooError, match="no character"):
        read_json(tmp_path / "a.json")


REFUSED_BY_BOTH = [
    ("9" * 30, "64 bits"),
    ("9" * 9000, "read"),
    ("[" * 100 + "]" * 100, "deeply"),
    ("[" * 600 + "]" * 600, "deeply"),
    ('"\\ud800"', "no character|read"),
    ('{"a": 1, "a": 2}', "stands twice"),
]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *REFUSED_BY_BOTH,
        ("[" * 100_000, "deeply"),
        ("NaN", "finite"),
        ("[1e999]", "finite"),
        ('"\\u0000"', "no character"),
        ("{", "JSON"),
    ],
)
def test_json_that_is_refused(text, words):
    with pytest.raises(ZooError, match=words) as caught:
        parse_json(text, "x")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *REFUSED_BY_BOTH,
        ("a: .nan", "finite"),
        ("a: -.inf", "finite"),
        ("5: 1", "in quotes"),
        ("true: 1", "in quotes"),
        ("a: &b [1]\nc: *b", "aliases"),
        ("a: &a [*a]", "aliases"),
        ("a: &b {c: 1}\n<<: *b", "aliases"),
        ("a: !!set {b}", "no text"),
        ("a: !!binary aaaa", "no text"),
        ("a: !!python/object:os.system x", "YAML"),
        ("a: \x1b", "YAML"),
    ],
)
def test_yaml_that_is_refused(text, words):
    with pytest.raises(ZooError, match=words) as caught:
        parse_yaml(text, "x")
    assert len(str(caught.value)) < 1100


@pytest.mark.parametrize("text", ["1:30:00", "010", "0x10", "1_000", "2026-01-01", "1:30.5", "1e", "e5", "5e-"])
def test_yaml_reads_decimals_alone_as_numbers(text):
    assert parse_yaml(f"a: {text}", "x") == {"a": text}


@pytest.mark.parametrize("text", ["5e-4", "5e-1", "1E5", "1.5e3", "-2e+3", "5.0e-1", ".5", "1."])
def test_what_is_a_number_in_json_is_one_in_yaml(text):
    assert parse_yaml(f"{{a: {text}}}", "x") == {"a": float(text)}
    for value in (text, float(text)):  # as text it is written in quotes
        again = parse_yaml(dump_yaml({"a": value}), "x")["a"]
        assert (again, type(again)) == (value, type(value))


def test_yaml_of_ours():
    text = "a: 1\nb: -2.5\nc: [yes, null, x]\nd: {e: 1.5e-3, f: .5}\ng: '1'\n"
    value = {"a": 1, "b": -2.5, "c": [True, None, "x"], "d": {"e": 0.0015, "f": 0.5}, "g": "1"}
    assert parse_yaml(text, "x") == value
    assert parse_json('{"a": [1, -2.5, true, null, "ä"]}', "x") == {"a": [1, -2.5, True, None, "ä"]}


def test_a_bomb_of_aliases_is_refused_at_once():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join(['*' + a] * 10)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)]
    with pytest.raises(ZooError, match="aliases"):
        parse_yaml("\n".join(lines), "x")


def test_what_is_no_ordinary_file_is_written_into(tmp_path):
    """And not replaced by one: a pipe's reader reads, a link goes on pointing where it did."""
    pipe = special("pipe", tmp_path)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_writable(pipe)
    write_json(pipe, [1])
    assert os.read(reader, 99) == b"[\n  1\n]\n"
    assert pipe.is_fifo()
    os.close(reader)
    ends = os.pipe()  # without a path, as of `--json >(jq .)`
    check_writable(f"/dev/fd/{ends[1]}")
    write_json(f"/dev/fd/{ends[1]}", [2])
    assert os.read(ends[0], 99) == b"[\n  2\n]\n"
    for end in ends:
        os.close(end)
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to("folder/file")
    for value in (1, 2):
        write_json(link, value)
        assert (link.is_symlink(), read_json(tmp_path / "folder" / "file")) == (True, value)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]


def test_what_was_there_is_kept(tmp_path):
    path, before = tmp_path / "a", tmp_path / "a.before"
    for text in "123":
        atomic_write(path, text, before)
    assert (path.read_text(), before.read_text()) == ("3", "2")
    with pytest.raises(ZooError, match="cannot write"):
        atomic_write("a\0b", "x")


def test_others_may_read_what_is_created(tmp_path):
    assert create_file(tmp_path / "a", b"x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("value", [0, MOST + 1, 10**400, 1.0, True, "4", None, [1], "\x1b" * 10_000])
def test_counts_are_bounded(value):
    for check in (lambda: check_integer("channels", value, 1), lambda: check_timesteps(value)):
        with pytest.raises(ZooError) as caught:
            check()
        assert str(caught.value).isprintable()
    with pytest.raises(ZooError):
        check_number("decay", value if not isinstance(value, float) else float("nan"), 0.5, 0.9)


def test_one_at_a_time_in_a_folder(tmp_path):
    order = []

    def wait():
        with locked(tmp_path / "new"):
            order.append("second")

    with locked(tmp_path / "new"):
        other = threading.Thread(target=wait)
        other.start()
        other.join(0.2)
        order.append("first")
    other.join(20)
    assert order == ["first", "second"]
    (tmp_path / "file").touch()
    with pytest.raises(ZooError, match=r"cannot write .*below"), locked(tmp_path / "file" / "below"):
        pass


def test_the_home_folder_is_where_its_user_means_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/x") == tmp_path / "x"
    atomic_write("~/x", "text")
    assert read_text(tmp_path / "x") == read_text("~/x") == "text"
    assert str(user_path("~nobody-of-this-name/x")) == "~nobody-of-this-name/x"
    monkeypatch.chdir(tmp_path)
    atomic_write("~nobody-of-this-name", "text")  # a name like others
    check_writable("~nobody-of-this-name")

"""Ordinary files alone are read, within bounds, as plain values; what is foreign is printed on one line, escaped."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT

from zoo.errors import ZooError, one_line, one_of, out_of_memory, quoted, run_command, shown
from zoo.files import (
    atomic_write,
    check_writable,
    dump_yaml,
    locked,
    parse_json,
    parse_yaml,
    read_json,
    read_text,
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
def test_only_ordinary_files_are_read(kind, tmp_path):
    """At once: a pipe is not waited for."""
    path = special(kind, tmp_path)
    for read in (read_text, *([] if kind == "large" else [sha256_of])):
        with pytest.raises(ZooError, match=r"read|no such file"):
            read(path)


def test_text_is_utf8_whatever_the_locale(tmp_path):
    with pytest.raises(ZooError, match="not UTF-8"):
        read_json(special("bytes", tmp_path))
    write_json(tmp_path / "a.json", {"ä": "half \udcff"})
    assert '"ä": "half \\udcff"' in (tmp_path / "a.json").read_bytes().decode()
    with pytest.raises(ZooError, match="no character"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("9" * 30, "64 bits"),
        ("9" * 9000, "read"),
        ("[" * 100 + "]" * 100, "deeply"),
        ("[" * 100_000, "deeply"),
        ("NaN", "finite"),
        ("[1e999]", "finite"),
        ('"\\ud800"', "no character"),
        ('{"\\u0000": 1}', "no character"),
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
        ("a: 1\na: 2", 'duplicate key "a" .* in line 2'),
        ("a: !!python/object:os.system x", "constructor for the tag .* in line 1"),
        ("a: \x1b", "unacceptable character"),
    ],
)
def test_yaml_that_is_refused(text, words):
    with pytest.raises(ZooError, match=f"cannot read x as YAML: .*{words}"):
        parse_yaml(text, "x")


def test_yaml_is_yaml_1_2():
    text = "a: 1\nb: -2.5\nc: [yes, off, null, true]\nd: {e: 5e-4, f: .5}\ng: '1'\nh: 1:30\n"
    value = {"a": 1, "b": -2.5, "c": ["yes", "off", None, True], "d": {"e": 0.0005, "f": 0.5}, "g": "1", "h": "1:30"}
    assert parse_yaml(text, "x") == value
    shared = [1, "5e-4", 1e-5, "ä" * 300]  # written out each time
    for written in ({"z": shared, "a": shared}, value):
        again = parse_yaml(dump_yaml(written), "x")
        assert (again, list(again)) == (written, list(written))
        assert not set(dump_yaml(written)) & set("&*")


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


def test_of_several_writers_of_one_file_each_writes_it_whole(tmp_path):
    file, texts = tmp_path / "file", {str(i) * 100_000 for i in range(4)}
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda text: [atomic_write(file, text) for _turn in range(20)], texts):
            assert file.read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


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
    with pytest.raises(ZooError, match="cannot write"):
        atomic_write("a\0b", "x")
    atomic_write("~/x", "text")
    assert read_text(tmp_path / "x") == read_text("~/x") == "text"
    assert str(user_path("~nobody-of-this-name/x")) == "~nobody-of-this-name/x"
    monkeypatch.chdir(tmp_path)
    atomic_write("~nobody-of-this-name", "text")  # a name like others
    check_writable("~nobody-of-this-name")


NASTY = ["\x1b[31mred", "a\nb", "\u202eright to left", "\x9b2J", "\ud800", "nul\0", "\u2028", "x" * 100_000]


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize(
    "say",
    [
        shown,
        quoted,
        lambda text: str(ZooError(f"no such thing: {text}; name another")),
        lambda text: str(one_of("thing", text, ["red", "green"])),
        lambda text: str(one_of("thing", [text], ["red", "green"])),
        lambda text: one_line(ValueError(text)),
    ],
)
def test_foreign_text_is_printable_short_and_on_one_line(text, say):
    said = say(text)
    assert said.isprintable()
    assert len(said) < 1010
    said.encode()
    assert ZooError(said).args == (said,)  # escaped once, not again


def test_ordinary_text_stays_as_it_is():
    text = "cannot read /tmp/Größe/日本.json: 'a \\x' is no number; π ≈ 3.14"
    assert shown(text) == str(ZooError(text)) == text
    assert "green, blue" in str(one_of("colour", "gren", ["green", "blue"]))
    assert str(one_of("colour", 3, ["green"])) == "unknown colour 3 (known: green)"
    long = str(ZooError(f"{'x ' * 5000}: name another"))
    assert long.endswith(": name another")
    assert len(long) < 1010


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ZooError("bad\x1b[31m input"), "bad\\x1b[31m input"),
        (OSError(28, "No space left", "a\x1bb"), "No space left: a\\x1bb"),
        (MemoryError(), "not enough memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 bytes."),
            "400",
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 12 bytes"), "12 bytes"),
    ],
)
def test_a_command_ends_in_one_line(error, words, capsys):
    def main(argv):
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert words in said
    assert said.strip().isprintable()


def test_other_errors_are_not_hidden():
    def main(argv):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_command(main)
    assert out_of_memory(RuntimeError("a bug")) is None


@pytest.mark.slow
def test_a_reader_that_has_enough_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m zoo list --json | head -1", shell=True, text=True, capture_output=True, cwd=ROOT
    )
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_every_process_tells_its_error(monkeypatch, capsys):
    def fail(_):
        raise ZooError("no data here")

    for rank, world, told in (("1", "1", "error: no data here"), ("1", "2", "[process 1] error: no data here")):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", world)
        with pytest.raises(SystemExit):
            run_command(fail)
        assert capsys.readouterr().err == f"{told}\n"

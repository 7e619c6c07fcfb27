"""What reaches a terminal: one line, escaped, short; and what a command makes of errors that are not ours."""

import subprocess
import sys

import pytest
from conftest import ROOT

from zoo.errors import ZooError, one_line, one_of, out_of_memory, quoted, run_command, shown

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
        (RecursionError(), "nested"),
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

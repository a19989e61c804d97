from __future__ import annotations

import pytest

from leakloc.cli import BAD_USAGE, DONE, main


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["analyse", "x"], "no command is named 'analyse'; did you mean 'analyze'?"),
        (["xyz"], "commands: analyze, relabel"),
        (["--verison"], "did you mean '--version'?"),
        # `-o` is missing too, which argparse would report first.
        (["analyze", "x", "--outptu", "y"], "did you mean '--output'?"),
        (["analyze", "x", "--lumbr-count=6"], "did you mean '--lumbar-count'?"),
        (["analyze", "--qqq"], "`leakloc analyze --help` lists all options"),
    ],
)
def test_mistyped_words_are_answered_with_a_suggestion(capsys, arguments, complaint):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == BAD_USAGE
    assert complaint in capsys.readouterr().err


def test_abbreviated_options_and_values_are_accepted(capsys):
    assert main(["config", "--pipe", "postoperative", "--json"]) == DONE
    with pytest.raises(SystemExit) as stop:
        main(["config", "--", "--outptu"])
    assert stop.value.code == BAD_USAGE
    assert "no option is named" not in capsys.readouterr().err


def test_without_arguments_the_help_is_printed(capsys):
    assert main([]) == DONE
    printed = capsys.readouterr()
    assert "analyze" in printed.out and printed.err == ""

import math

import pytest

from cli import output
from cli.output import complain, duration, number, percent, show_table, spark


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.4, "0 s"), (59.6, "1:00 min"), (185, "3:05 min"), (7800, "2:10 h")]
)
def test_durations_are_read_at_a_glance(seconds, text):
    assert duration(seconds) == text


def test_figures_that_are_missing_or_not_finite_show_as_such():
    assert (number(None), number(math.nan), percent(None), percent(math.inf)) == ("-", "nan", "-", "-")
    assert (number(0.123456), percent(0.9865)) == ("0.1235", "98.7 %")


def test_a_spark_line_spans_the_range_and_leaves_gaps():
    assert spark([0.0, math.nan, 7.0]) == "▁ █"
    assert spark([3.0, 3.0]) == "▅▅"
    assert spark([math.nan]) == ""
    assert len(spark(list(range(1000)))) == 32


def test_a_complaint_is_one_line(capsys):
    complain("first\n  second")

    assert capsys.readouterr().err == "evenkeel: first second\n"


def test_a_table_shows_brackets_as_they_are(capsys):
    show_table(("", ""), [("hidden", "[red]8[/red]")])

    assert "[red]8[/red]" in capsys.readouterr().out


def test_on_a_narrow_terminal_names_stay_whole_and_nothing_is_cut_off(monkeypatch, capsys):
    monkeypatch.setattr(output, "PIPE_COLUMNS", 60)
    words = "a description of many words that has to be broken somewhere"

    show_table(("layer", "status", "meaning"), [("stage1.block1.batch_norm", "succeeded", words)])

    told = capsys.readouterr().out
    assert "stage1.block1.batch_norm" in told and "…" not in told
    assert all(word in told for word in words.split())
    assert max(map(len, told.splitlines())) <= 60

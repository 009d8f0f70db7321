"""Summaries over rows: by hand, without what is perfect before, and as they are printed and written."""

import csv
import io
import math

import pytest

from deal.evaluate import report
from deal.evaluate.results import Figures, Results
from deal.evaluate.summary import Summary, summarise

INF = math.inf
# (PSNR, affine PSNR) of two images by row and method.
FOUND = {
    "clean": {"none": [(INF, INF), (INF, INF)], "a": [(50, 60), (40, 50)], "b": [(INF, INF), (130, 99)]},
    "noise": {"none": [(26, 27), (24, 25)], "a": [(31, 33), (29, 31)], "b": [(20, 22), (30, 32)]},
    "contrast": {"none": [(20, INF), (22, 140)], "a": [(19, 70), (21, 30)], "b": [(INF, INF), (30, 110)]},
    "mixed": {"none": [(INF, INF), (10, 12)], "a": [(90, 80), (16, 20)], "b": [(70, 60), (15, 19)]},
}


def results(rows=tuple(FOUND), methods=("none", "a", "b")):
    figures = [
        Figures(row, method, f"{k}.png", psnr, affine, 0.9, 0.01, 0.02, 1.0)
        for row in rows
        for method, found in FOUND[row].items()
        for k, (psnr, affine) in enumerate(found)
    ]
    return Results(figures, tuple(rows), methods, "")


def test_by_hand():
    """Of images whose input is below 100 dB: the row clean counts apart, and so does the first image of mixed."""
    found = {each[:2]: each for each in summarise(results())}
    assert list(found) == [(metric, method) for metric in ("psnr", "affine_psnr") for method in ("none", "a", "b")]
    # noise 25, contrast 21, mixed 10
    assert found["psnr", "none"][2:] == pytest.approx((56 / 3, 10, "mixed", 0, 0, "noise", 100))
    # noise 30, contrast 20, mixed 16
    assert found["psnr", "a"][2:] == pytest.approx((22, 16, "mixed", 10 / 3, -1, "contrast", (50 + 40 + 90) / 3))
    # noise 25, contrast (100 + 30) / 2, mixed 15
    assert found["psnr", "b"][2:] == pytest.approx((35, 15, "mixed", (0 + 44 + 5) / 3, 0, "noise", 270 / 3))
    # noise 32, mixed 20; contrast is perfect before
    assert found["affine_psnr", "a"][2:] == pytest.approx((26, 20, "mixed", 7, 6, "noise", 290 / 5))
    assert found["affine_psnr", "b"].perfect_inputs == pytest.approx((100 + 99 + 100 + 100 + 60) / 5)


def test_nothing_can_be_gained():
    for each in summarise(results(["clean"], ("a",))):
        assert each[4::3] == ("", "") and all(map(math.isnan, (*each[2:4], *each[5:7])))
        assert each.perfect_inputs == {"psnr": 45, "affine_psnr": 55}[each.metric]


def test_nothing_is_perfect():
    assert all(math.isnan(each.perfect_inputs) for each in summarise(results(["noise"])))


def test_tables():
    said = report.as_markdown(results())
    head = "| Summary of PSNR, dB | mean | least | in row | mean gain | least gain | in row | of perfect inputs |"
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert head in lines and head.replace("of PSNR", "of affine PSNR") in lines
    assert "| a | 22.00 | 16.00 | mixed | 3.33 | -1.00 | contrast | 60.00 |" in lines
    assert "| none | 18.67 | 10.00 | mixed | 0.00 | 0.00 | noise | > 100 |" in lines
    assert "| Row residual | none | a | b |" in lines and "| noise | 0.0200 | 0.0200 | 0.0200 |" in lines
    alone = [" ".join(line.split()) for line in report.as_markdown(results(["clean"], ("a",))).splitlines()]
    assert "| a | - | - | | - | - | | 45.00 |" in alone


def test_nothing_lost_is_no_loss():
    figures = [Figures("r", method, "a", psnr, psnr, 0, 0, 0, 0) for method, psnr in (("none", 20), ("a", 19.999))]
    said = report.as_markdown(Results(figures, ("r",), ("a",), ""))
    assert "0.00" in said and "-0.00" not in said


def test_file(tmp_path):
    report.write(results(), tmp_path)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "summary.csv").read_text())))
    assert tuple(lines[0]) == Summary._fields and len(lines) == 6
    assert [float(lines[1][name]) for name in ("mean", "worst", "least_gain")] == [22, 16, -1]
    assert [lines[1][name] for name in ("worst_row", "least_gain_row")] == ["mixed", "contrast"]
    means = [
        line for line in csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())) if line["image"] == "mean"
    ]
    assert means[0]["psnr"] == "100.0" and means[0]["row_residual"] == "0.02"

"""Progress reports of an evaluation."""

from __future__ import annotations

from hafabench.engines.progress import report_progress
from tests.support.messages import missing_facts


class Source:
    """Batches, each of which advances a clock."""

    def __init__(self, batches: int, seconds: float):
        self.batches, self.seconds, self.now, self.closed = batches, seconds, 100.0, False

    def __iter__(self):
        try:
            for number in range(self.batches):
                self.now += self.seconds
                yield number
        finally:
            self.closed = True

    def report_progress(self, images: int, batch_size: int):
        return report_progress(iter(self), "the/run", images, batch_size, clock=lambda: self.now)


def test_a_long_evaluation_reports_rate_and_time_left(capsys):
    source = Source(batches=10, seconds=4)
    assert list(source.report_progress(images=39, batch_size=4)) == list(range(10))
    lines = capsys.readouterr().err.splitlines()
    for line, done, seconds in zip(lines, (12, 24, 36, 39), (27.0, 15.0, 3.0, 0.0), strict=True):
        assert missing_facts(line, "the/run", f"{done} of 39 images", "1.0 images/s", f"{seconds} s") == []


def test_a_short_evaluation_reports_nothing(capsys):
    assert len(list(Source(batches=4, seconds=2).report_progress(images=16, batch_size=4))) == 4
    assert capsys.readouterr().err == ""


def test_the_iterator_is_closed():
    source = Source(batches=4, seconds=1)
    batches = source.report_progress(images=16, batch_size=4)
    assert next(batches) == 0
    batches.close()
    assert source.closed

"""The claims as text for a terminal, as Markdown, as CSV and as JSON: the formats of `hafabench claims`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from hafabench.formatting.text import one_line
from hafabench.reporting.claims.ledger import Ledger
from hafabench.reporting.claims.verdicts import ClaimVerdict
from hafabench.reporting.csv import render_claims
from hafabench.reporting.markdown import claims_page


def to_text(ledger: Ledger, verdicts: Sequence[ClaimVerdict]) -> str:
    """Return one line per verdict, then the totals of the whole ledger."""
    fields = [(v.claim.locator, v.claim.text_with_unit, v.verdict) for v in verdicts]
    widths = [max(map(len, column)) for column in zip(*fields, strict=True)]
    lines = [
        f"{locator:{widths[0]}}  {printed:>{widths[1]}}  {name:{widths[2]}}  {one_line(verdict.because)}"
        for (locator, printed, name), verdict in zip(fields, verdicts, strict=True)
    ]
    totals = ", ".join(f"{count} {name}" for name, count in ledger.totals().items())
    summary = f"{ledger.settled} of {len(ledger.verdicts)} claims settled: {totals}; in all {ledger.composition}"
    return "\n".join([*lines, summary])


def to_json(ledger: Ledger, verdicts: Sequence[ClaimVerdict]) -> str:
    """Claims, totals by verdict, and how well each row convention holds."""
    fits = []
    for fit in ledger.fits:
        values = asdict(fit)
        del values["row_convention"]
        fits.append({**fit.row_convention.model_dump(mode="json"), **values})
    content = {
        "experiment": ledger.experiment,
        "scale": ledger.scale,
        "verdicts": ledger.totals(),
        "settled": ledger.settled,
        "claims": ledger.rows(verdicts),
        "readings": fits,
    }
    return json.dumps(content, indent=2) + "\n"


FORMATS: dict[str, Callable[[Ledger, Sequence[ClaimVerdict]], str]] = {
    "text": to_text,
    "markdown": claims_page,
    "csv": render_claims,
    "json": to_json,
}

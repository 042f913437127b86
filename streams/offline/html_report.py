"""Report of an evaluation as one HTML file with tables and SVG plots; it loads nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from streams.errors import InputError
from streams.offline.prequential import Curve

_W, _H, _LEFT, _TOP, _RIGHT, _BOTTOM = 560, 300, 64, 28, 16, 44
_COLOURS = ("#1b6ca8", "#c8553d", "#588157", "#8e5ea2")
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}figure{display:inline-block;margin:0 1rem 1rem 0}
.verdict{font-size:1.15rem;font-weight:600}.worse{color:#a3291b}.note{color:#666}
"""


def page(report: dict[str, Any], curves: Sequence[Curve] = ()) -> str:
    """Return the report of `groundswell evaluate` for one origin of its JSON output."""
    worse = "" if report["wins"] else " worse"
    parts = [
        "<!doctype html>",
        f'<html lang="en"><meta charset="utf-8"><title>Groundswell: evaluation</title><style>{_STYLE}</style>',
        f'<p class="verdict{worse}">{escape(report["verdict"])}</p>',
        f"<p>{escape(report['about'])}</p>",
        "<h2>Every scorer on the same users</h2>",
        table(report["table"]),
        "<h2>Paired differences</h2>",
        table(report["differences"]),
        "<h2>Calibration and lift</h2>",
        "<p class=note>Tenths of the users by score, lowest first.</p>",
        _calibration(report["deciles"]),
        _lift(report["deciles"], report["best_lift"], report["best"]),
    ]
    if report.get("live"):
        parts += ["<h2>Each post, scored from the state just before it</h2>", table(report["live"]["table"])]
    if curves:
        parts += ["<h2>Breakouts: the score over time</h2>", *(_curve(curve) for curve in curves)]
    if report.get("worth"):
        parts += [
            "<h2>Spearman lost without a group of features</h2>",
            _ablations(report["worth"]),
            table(report["worth"]),
        ]
    parts.append(f'<p class="note">{escape(report["command"])}<br>model {escape(report["model"])}</p>')
    return "\n".join(parts) + "\n"


def alerts_page(report: dict[str, Any]) -> str:
    """Return the report of `groundswell evaluate --alerts`."""
    parts = [
        "<!doctype html>",
        f'<html lang="en"><meta charset="utf-8"><title>Groundswell: alerts</title><style>{_STYLE}</style>',
        f'<p class="verdict">{escape(report["verdict"])}</p>',
        f"<p>{escape(report['about'])}</p>",
        "<h2>Alerts: every rule on the same replay</h2>",
        _rules(report["rules"]),
        table(report["table"]),
        f'<p class="note">{escape(report["legend"])}</p>',
        "<h2>Paired differences</h2>",
        table(report["differences"]),
        f'<p class="note">{escape(report["command"])}<br>model {escape(report["model"])}</p>',
    ]
    return "\n".join(parts) + "\n"


def write_page(path: Path, html: str) -> None:
    """Write a page, and the folders above it.

    Raises:
        InputError: the page cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error}); give another --html") from error


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows with the same keys as an HTML table."""
    if not rows:
        return "<p>No rows.</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    lines = ["<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row.values()) + "</tr>" for row in rows]
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


class _Plot:
    """A plot with two axes; logarithmic axes show log(1 + value)."""

    def __init__(
        self, title: str, x: tuple[float, float], y: tuple[float, float], *, labels: tuple[str, str], log: bool
    ) -> None:
        self._log = log
        self._x = (self._scaled(x[0]), max(self._scaled(x[1]), self._scaled(x[0]) + 1e-9))
        self._y = (self._scaled(y[0]), max(self._scaled(y[1]), self._scaled(y[0]) + 1e-9))
        base = _H - _BOTTOM
        self._out = [
            (
                f'<figure><svg xmlns="http://www.w3.org/2000/svg" width="{_W}" height="{_H}" viewBox="0 0 {_W} {_H}" '
                'font-family="sans-serif" font-size="12">'
            ),
            f'<text x="{_LEFT}" y="16" font-weight="bold">{escape(title)}</text>',
            f'<path d="M{_LEFT} {_TOP}V{base}H{_W - _RIGHT}" fill="none" stroke="#888"/>',
            f'<text x="{(_LEFT + _W - _RIGHT) / 2}" y="{_H - 6}" text-anchor="middle">{escape(labels[0])}</text>',
            (
                f'<text transform="translate(14 {(_TOP + base) / 2}) rotate(-90)" text-anchor="middle">'
                f"{escape(labels[1])}</text>"
            ),
        ]
        for share in (0.0, 0.5, 1.0):
            value = self._y[0] + share * (self._y[1] - self._y[0])
            shown = math.expm1(value) if log else value
            y_pixel = base - share * (base - _TOP)
            self._out.append(f'<text x="{_LEFT - 6}" y="{y_pixel + 4:.1f}" text-anchor="end">{shown:.3g}</text>')

    def _scaled(self, value: float) -> float:
        return math.log1p(max(value, 0.0)) if self._log else value

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixel position of a point."""
        across = (self._scaled(x) - self._x[0]) / (self._x[1] - self._x[0])
        up = (self._scaled(y) - self._y[0]) / (self._y[1] - self._y[0])
        return round(_LEFT + across * (_W - _LEFT - _RIGHT), 1), round(_H - _BOTTOM - up * (_H - _TOP - _BOTTOM), 1)

    def tick(self, x: float, text: str) -> None:
        """Add a label to the x axis."""
        x_pixel = self.place(x, 0)[0]
        self._out.append(f'<text x="{x_pixel}" y="{_H - _BOTTOM + 15}" text-anchor="middle">{escape(text)}</text>')

    def line(self, points: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> None:
        """Add a line through points."""
        joined = " ".join("{},{}".format(*self.place(*point)) for point in points)
        dash = ' stroke-dasharray="4 4"' if dashed else ""
        self._out.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')

    def dots(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        """Add single points."""
        self._out += [
            '<circle cx="{}" cy="{}" r="4" fill="{}" fill-opacity=".75"/>'.format(*self.place(*point), colour)
            for point in points
        ]

    def legend(self, names: Sequence[str]) -> None:
        """Add the names of the colours."""
        for number, name in enumerate(names):
            y = _TOP + 6 + 16 * number
            self._out.append(f'<rect x="{_LEFT + 10}" y="{y - 8}" width="10" height="10" fill="{_COLOURS[number]}"/>')
            self._out.append(f'<text x="{_LEFT + 26}" y="{y + 1}">{escape(name)}</text>')

    def text(self) -> str:
        """Return the figure as HTML."""
        return "".join([*self._out, "</svg></figure>"])


def _calibration(deciles: Sequence[dict[str, Any]]) -> str:
    predicted = [part["predicted"] for part in deciles]
    low = min(*predicted, *(part["typical"] for part in deciles))
    high = max(*predicted, *(part["observed"] for part in deciles))
    ends = (low * 0.8, high * 1.2)
    plot = _Plot(
        "Calibration (distinct sharers)", ends, ends, labels=("predicted reach (log scale)", "observed reach"), log=True
    )
    plot.line([(ends[0], ends[0]), (ends[1], ends[1])], "#bbb", dashed=True)
    plot.dots([(part["predicted"], part["typical"]) for part in deciles], _COLOURS[0])
    plot.dots([(part["predicted"], part["observed"]) for part in deciles], _COLOURS[1])
    plot.legend(["geometric mean (which the score predicts)", "mean"])
    for value in (ends[0], ends[1]):
        plot.tick(value, f"{value:.3g}")
    return plot.text()


def _lift(deciles: Sequence[dict[str, Any]], best: Sequence[float], name: str) -> str:
    lift = [part["lift"] for part in deciles]
    plot = _Plot(
        "Lift: mean reach of a tenth ÷ that of all", (1, len(lift)), (0, max(*lift, *best) * 1.3),
        labels=("tenth by score", "lift"), log=False,
    )  # fmt: skip
    plot.line([(1, 1), (len(lift), 1)], "#bbb", dashed=True)
    for values, colour in ((lift, _COLOURS[0]), (best, _COLOURS[1])):
        plot.line(list(enumerate(values, 1)), colour)
        plot.dots(list(enumerate(values, 1)), colour)
    plot.legend(["model", name])
    for tenth in range(1, len(lift) + 1):
        plot.tick(tenth, str(tenth))
    return plot.text()


def _rules(rules: Sequence[dict[str, Any]]) -> str:
    """Plot recall against alerts in time by rule; the shipped rule comes first."""
    points = [(rule["recall"]["value"], rule["ahead"]["value"]) for rule in rules]
    most = max([*(ahead for _, ahead in points), 1e-9])
    labels = ("recall of knowable breakouts", "alerts in time")
    plot = _Plot("Rules", (0.0, 1.0), (0.0, 1.2 * most), labels=labels, log=False)
    plot.dots(points[1:], _COLOURS[0])
    plot.dots(points[:1], _COLOURS[1])
    plot.legend(["other rules", "shipped"])
    for value in (0.0, 0.5, 1.0):
        plot.tick(value, f"{value:.1f}")
    return plot.text()


def _curve(curve: Curve) -> str:
    times = [*curve.times, *(time for time, _ in curve.posts)]
    top = max([*curve.reach, *(float(reach) for _, reach in curve.posts)])
    ends = (float(min(times)), float(max(times)))
    plot = _Plot(curve.user, (0.0, 1.0), (0.0, 3 * top), labels=("time", "distinct sharers (log scale)"), log=True)
    span = max(ends[1] - ends[0], 1.0)

    def across(time: float) -> float:
        # The time axis stays linear although the plot is logarithmic.
        return math.expm1((time - ends[0]) / span * math.log(2))

    plot.line([(across(time), reach) for time, reach in zip(curve.times, curve.reach, strict=True)], _COLOURS[0])
    plot.dots([(across(time), float(reach)) for time, reach in curve.posts], _COLOURS[1])
    plot.legend(["predicted reach of the next post", "reach of a post"])
    for end, anchor in zip(ends, (0.05, 0.95), strict=True):
        day = datetime.fromtimestamp(end / 1e6, UTC).strftime("%Y-%m-%d")
        plot.tick(math.expm1(anchor * math.log(2)), day)
    return plot.text()


def _ablations(rows: Sequence[dict[str, Any]]) -> str:
    """Plot the Spearman lost without each group of features as bars."""
    whole = rows[0]["all"]
    costs = [(row["left out"], whole - row["all"]) for row in rows[1:]]
    most = max(*(abs(cost) for _, cost in costs), 1e-09)
    height = 26 * len(costs) + 30
    out = [
        (
            f'<figure><svg xmlns="http://www.w3.org/2000/svg" width="{_W}" height="{height}" font-family="sans-serif" '
            'font-size="12"><text x="0" y="14" font-weight="bold">Spearman lost without it (all)</text>'
        )
    ]
    for number, (name, cost) in enumerate(costs):
        y, width = 24 + 26 * number, 150 * abs(cost) / most
        x = 320 if cost >= 0 else 320 - width
        out.append(f'<text x="150" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        out.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" fill="{_COLOURS[cost < 0]}"/>')
        out.append(f'<text x="{_W}" y="{y + 14}" text-anchor="end">{cost:+.3f}</text>')
    return "".join([*out, "</svg></figure>"])

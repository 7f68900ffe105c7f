"""Draws gemm.svg, families.svg and roofline.svg from `benchmarks --format json`. The same JSON gives the same bytes.

plot.py JSON FOLDER [svg|png]
"""

import json
import math
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter  # noqa: E402

# In drawing order: colour (Okabe and Ito, told apart by the colour-blind), marker, legend text.
BACKENDS = {
    "multithreaded": ("#0072B2", "o", "multithreaded"),
    "blas": ("#CC79A7", "s", "blas"),
    "openblas": ("#E69F00", "D", "OpenBLAS called directly"),
    "reference": ("#8A8A8A", "^", "reference"),
}
GEMM_WORDS = ("gemm", "linear", "matmul")
INK, FAINT = "#222222", "#D9D9D9"

plt.rcParams.update(
    {
        "svg.hashsalt": "quern",
        "svg.fonttype": "none",  # text stays text
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.titlelocation": "left",
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.titlepad": 21,
        "grid.color": FAINT,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
    }
)


def style(backend):
    return BACKENDS.get(backend, ("#009E73", "P", backend))


def backends_of(rows):
    present = {row["backend"] for row in rows}
    return [b for b in BACKENDS if b in present] + sorted(present - set(BACKENDS))


def unique(values):
    return list(dict.fromkeys(values))


def subtitle(rows):
    """The conditions of the run, from the fastest backend's rows."""
    rows = [r for r in rows if r["backend"] == "multithreaded"] or rows
    peak, read = (max((r.get(key) or 0 for r in rows), default=0) for key in ("peak_gflops", "read_gbps"))
    return (
        f"{'/'.join(unique(r['dtype'] for r in rows))}, {'/'.join(unique(r['isa'] for r in rows))}, "
        f"{max(r['threads'] for r in rows)} threads; measured peak {peak:.0f} GFLOP/s, read bandwidth {read:.0f} GB/s"
    )


def frame(axes, title, rows):
    axes.set_title(title)
    axes.text(0, 1.008, subtitle(rows), transform=axes.transAxes, fontsize=9, color="#555555",
              va="bottom", ha="left", in_layout=False, clip_on=False)


def legend(figure, axes):
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=len(labels), fontsize=9)


def gemm(rows):
    rows = [r for r in rows if r.get("gflops") and any(word in r["op"] for word in GEMM_WORDS)]
    if not rows:
        return None
    groups, backends = unique((r["op"], r["case"]) for r in rows), backends_of(rows)
    ops = unique(op for op, _ in groups)
    groups.sort(key=lambda group: ops.index(group[0]))
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.19 * (len(backends) + 1) * len(groups)), layout="constrained")
    height = 0.84 / len(backends)
    for index, backend in enumerate(backends):
        colour, _, text = style(backend)
        best = {(r["op"], r["case"]): r["gflops"] for r in sorted(rows, key=lambda r: r["gflops"]) if r["backend"] == backend}
        places = [n + (index - (len(backends) - 1) / 2) * height for n, group in enumerate(groups) if group in best]
        figures = [best[group] for group in groups if group in best]
        bars = axes.barh(places, figures, height * 0.92, color=colour, label=text)
        axes.bar_label(bars, [f"{x:.0f}" if x >= 10 else f"{x:.1f}" for x in figures], padding=3, fontsize=7.5)
    peak = max(r.get("peak_gflops") or 0 for r in rows)
    if peak:
        axes.axvline(peak, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="measured FMA peak")
    names = [case if len(ops) == 1 or case.startswith(op) else f"{op}  {case}" for op, case in groups]
    axes.set_yticks(range(len(groups)), names)
    axes.set_ylim(len(groups) - 0.45, -0.55)
    axes.set_xlim(0, max(peak, *(r["gflops"] for r in rows)) * 1.06)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel("GFLOP/s, median (more is better)")
    frame(axes, "Matrix products", rows)
    legend(figure, axes)
    return figure


def families(rows):
    rows = [r for r in rows if r.get("peak_fraction")]
    if not rows:
        return None
    ops, backends = unique(r["op"] for r in rows), backends_of(rows)
    figure, axes = plt.subplots(figsize=(9, 1.8 + 0.42 * len(ops)), layout="constrained")
    for index, backend in enumerate(backends):
        colour, marker, text = style(backend)
        shift = (index - (len(backends) - 1) / 2) * 0.17
        first = True
        for place, op in enumerate(ops):
            shares = [r["peak_fraction"] for r in rows if r["op"] == op and r["backend"] == backend]
            if not shares:
                continue
            axes.plot([min(shares), max(shares)], [place + shift] * 2, color=colour, linewidth=2, alpha=0.45, zorder=2)
            axes.plot(statistics.median(shares), place + shift, marker, color=colour, markersize=6, zorder=3,
                      label=text if first else None)
            first = False
    axes.set_yticks(range(len(ops)), ops)
    axes.set_ylim(len(ops) - 0.5, -0.5)
    for edge in range(1, len(ops)):
        axes.axhline(edge - 0.5, color=FAINT, linewidth=0.6)
    axes.set_xlim(0, max(1.04, max(r["peak_fraction"] for r in rows) * 1.04))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share * 100:.0f}%"))
    axes.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel("share of the measured FMA rate or bandwidth; mark: median of the cases, line: least to most")
    frame(axes, "How near the machine's limit, by operation", rows)
    legend(figure, axes)
    return figure


def roofline(rows):
    peak, read = (max((r.get(key) or 0 for r in rows), default=0) for key in ("peak_gflops", "read_gbps"))
    points = [r for r in rows if r.get("flops") and r.get("bytes") and r.get("gflops") and r["backend"] != "reference"]
    if not points or not peak or not read:
        return None
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    intensity = [r["flops"] / r["bytes"] for r in points]
    low, high = min(intensity) / 2, max(*intensity, peak / read) * 3
    axes.plot([low, peak / read, high], [low * read, peak, peak], color=INK, linewidth=1.5, zorder=1)
    axes.text(high, peak * 1.06, f"FMA peak, {peak:.0f} GFLOP/s", ha="right", va="bottom", fontsize=9)
    for depth, backend in enumerate(backends_of(points)):
        colour, marker, text = style(backend)
        chosen = [r for r in points if r["backend"] == backend]
        axes.scatter([r["flops"] / r["bytes"] for r in chosen], [r["gflops"] for r in chosen], s=34, marker=marker,
                     color=colour, edgecolor="white", linewidth=0.6, label=text, zorder=9 - depth)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    least = min(r["gflops"] for r in points)
    axes.set_ylim(least / 2, peak * 2)
    label_ops(axes, points)
    axes.grid(which="major")
    number = FuncFormatter(lambda x, _: f"{x:g}")
    axes.xaxis.set_major_formatter(number)
    axes.yaxis.set_major_formatter(number)
    axes.set_xlabel("intensity, flop per byte moved (reference backend and cases without arithmetic left out)")
    axes.set_ylabel("GFLOP/s, median")
    frame(axes, "Roofline", rows)
    figure.canvas.draw()  # settles the layout, so that the slope on the page is known
    start, end = axes.transData.transform([(low, low * read), (peak / read, peak)])
    angle = math.degrees(math.atan2(end[1] - start[1], end[0] - start[0]))
    middle = (low * peak / read) ** 0.5
    axes.text(middle, middle * read * 1.12, f"memory, {read:.0f} GB/s", rotation=round(angle, 1), rotation_mode="anchor",
              ha="center", va="bottom", fontsize=9)
    legend(figure, axes)
    return figure


def label_ops(axes, points):
    """One name per operation, tied to its highest point, moved down where two would touch."""
    shown = [r for r in points if r["backend"] == "multithreaded"] or points
    tops = [max((r for r in shown if r["op"] == op), key=lambda r: r["gflops"]) for op in unique(r["op"] for r in shown)]
    taken = []
    to_page = axes.transData.transform
    for row in sorted(tops, key=lambda r: (-r["gflops"], r["op"])):
        x, y = to_page((row["flops"] / row["bytes"], row["gflops"]))
        offset = -22
        while any(abs(x - ox) < 70 and abs(y + offset - oy) < 13 for ox, oy in taken):
            offset -= 4
        taken.append((x, y + offset))
        axes.annotate(row["op"], (row["flops"] / row["bytes"], row["gflops"]), (12, offset), textcoords="offset points",
                      fontsize=8, color=INK, zorder=20, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                      arrowprops={"arrowstyle": "-", "color": "#777777", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2})


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    rows = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rows = [row for row in rows if row.get("verified", True)]
    kind = sys.argv[3] if len(sys.argv) == 4 else "svg"
    for draw in (gemm, families, roofline):
        figure, path = draw(rows), Path(sys.argv[2]) / f"{draw.__name__}.{kind}"
        if figure is None:
            print(f"plots: no measurements for {path}", file=sys.stderr)
            continue
        figure.savefig(path, metadata={"Date": None} if kind == "svg" else None, dpi=110)
        print(f"plots: {path}", file=sys.stderr)


main()

"""The report of `make peers` as Markdown. Needs nothing but Python, so that readme.py can use it as well."""


def aligned(lines):
    """Rows of a table with every column as wide as its widest cell, for a terminal."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["| " + " | ".join(f"{cell:{width}}" for cell, width in zip(row, widths)) + " |" for row in rows]


def encoder(report):
    lines = [
        f"{report['processor']}, {report['threads']} threads, torch {report['torch']}, "
        f"backend {report['backend']}, {report['dtype']}, seconds are medians",
        "",
        "| case | torch, ms | quern, ms | speed-up | by round | tokens/s | largest difference |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    others = [name for name in ("openvino",) if any(name in row for row in report["cases"])]
    for name in others:
        lines[2] += f" {name}, ms | speed-up | its difference |"
        lines[3] += "--:|--:|--:|"
    for row in report["cases"]:
        theirs, ours = (row[side]["median_seconds"] for side in ("torch", "quern"))
        low, high = row["speedup_by_round"]
        lines.append(
            f"| {row['case']} | {theirs * 1e3:.2f} | {ours * 1e3:.2f} | {row['speedup']:.2f} | {low:.2f} to {high:.2f} "
            f"| {row['tokens'] / ours:,.0f} | {row['largest_difference']:.1e} |"
        )
        for name in others:
            lines[-1] += f" {row[name]['median_seconds'] * 1e3:.2f} | {row[f'speedup_{name}']:.2f} | {row[f'difference_{name}']:.1e} |"
    return "\n".join(lines)


def number(value, form=".2f"):
    return "" if value is None else format(value, form)


def cases(report):
    lines = ["| case | quern, ms | torch, ms | ratio | by round | torch out=, ms | ratio | of copy | difference |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for row in report["cases"]:
        name = f"{row['op']} {row['case']}"
        if "error" in row:
            lines.append(f"| {name} | FAILED: {row['error'].splitlines()[0].replace('|', '/')} | | | | | | | |")
            continue
        low, high = row["ratio_by_round"]
        out = row.get("torch_out_seconds")
        lines.append(
            f"| {name} | {row['quern_seconds'] * 1e3:.3f} | {row['torch_seconds'] * 1e3:.3f} | {row['ratio']:.2f} "
            f"| {low:.2f} to {high:.2f} | {number(out and out * 1e3, '.3f')} | {number(row.get('ratio_out'))} "
            f"| {number(row.get('share_of_copy'), '.0%')} | {row['difference']:.0e}{'' if row['agrees'] else ' WRONG'} |"
        )
    return lines


def families(report):
    lines = ["| family | cases | torch / quern | worst | worst case | with out= |", "|---|--:|--:|--:|---|--:|"]
    for row in report["families"]:
        out = f"{row['ratio_out']:.2f} ({row['cases_out']})" if row["ratio_out"] else ""
        lines.append(
            f"| {row['family']} | {row['cases']} | {row['ratio']:.2f} | {row['worst']:.2f} | {row['worst_case']} | {out} |"
        )
    lines.append(
        f"| all families | {len(report['cases'])} | {number(report['geometric_mean'])} | | "
        f"| {number(report['geometric_mean_out'])} |"
    )
    return lines


def verdict(report):
    """The bars, and what is not in the table, in words."""
    bar, lines = report["bar"], []

    def line(name, value, least):
        if value is not None:
            lines.append(f"{name}: {value:.2f}, {'reaches' if value >= least else 'UNDER'} the bar of {least}")

    line("geometric mean over all families", report["geometric_mean"], bar["geometric_mean"])
    worst = min(report["families"], key=lambda row: row["ratio"], default=None)
    if worst:
        line(f"lowest family ({worst['family']})", worst["ratio"], bar["family"])
    line("lowest share of copy bandwidth", report["lowest_share_of_copy"], bar["share_of_copy"])
    lines.append(
        f"copy: {report['copy_gbps']:.1f} GB/s read and written, {report['streamed_copy_gbps']:.1f} with streaming stores"
    )
    lines += [f"WRONG: {name}" for name in report["wrong"]]
    lines += [f"no counterpart: {row['op']} {row['case']}: {row['reason']}" for row in report["no_counterpart"]]
    if report["not_in_this_build"]:
        lines.append(f"counterpart, but no case in this build: {', '.join(report['not_in_this_build'])}")
    return lines


def head(report):
    return (
        f"{report['processor']}, {report['isa']}, {report['threads']} threads, torch {report['torch']}, backend "
        f"{report['backend']}, f32; ratio: torch's median seconds over ours"
    )


def operations(report):
    """All of it, for a terminal."""
    parts = [[head(report)], aligned(cases(report)), aligned(families(report)), verdict(report)]
    return "\n\n".join("\n".join(part) for part in parts) + f"\ntook {report['took_seconds']} s"

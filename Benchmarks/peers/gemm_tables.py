"""The report of `--part gemm` as Markdown. Needs nothing but Python, so that readme.py can use it as well."""

from tables import aligned, number

NAMES = {
    "ratio": "lowest ratio to the better peer",
    "geometric_mean": "geometric mean of the ratios",
    "of_fma": "lowest share of the FMA rate",
    "of_read": "lowest share of the read bandwidth",
}


def head(report):
    return (
        f"{report['processor']}, {report['isa']}, {report['threads']} threads, torch {report['torch']}, backend "
        f"{report['backend']}; medians of {report['rounds']} alternating rounds; FMA rate {report['fma_gflops']:.0f} "
        f"GFLOP/s, read bandwidth {report['read_gbps']:.1f} GB/s, the best of this run; before quantised "
        f"weights x has {report.get('activation_bits', 16)} bits here and 8 in llama.cpp"
    )


def milliseconds(seconds):
    return f"{seconds * 1e3:.4g}"


def bar_of(group, row):
    """The bars that a row is held to, and whether it reaches each."""
    marks = []
    for name, bar in group["bar"].items():
        if row.get(name) is not None:
            sign = "" if row[name] >= bar else "**under** "
            unit = {"ratio": "", "of_fma": " of FMA", "of_read": " of read"}[name]
            marks.append(f"{sign}{bar:g}{unit}")
    return ", ".join(marks)


def rows_of(group):
    lines = [
        "| m x n x k | quern, ms | GFLOP/s | GB/s | of FMA | of read | peers, ms | ratio | by round | of fastest "
        "| bar | difference |"
    ]
    lines.append("|---|--:|--:|--:|--:|--:|---|--:|--:|--:|---|--:|")
    for row in group["cases"]:
        if "error" in row:
            lines.append(f"| {row['label']} | FAILED: {row['error'].splitlines()[0].replace('|', '/')} |" + " |" * 10)
            continue
        by_time = sorted(row["peer_seconds"].items(), key=lambda pair: pair[1])
        peers = "; ".join(f"{name} {milliseconds(seconds)}" for name, seconds in by_time)
        low, high = row.get("ratio_by_round", (None, None))
        lines.append(
            f"| {row['label']} | {milliseconds(row['quern_seconds'])} | {row['gflops']:.4g} | {row['gbps']:.3g} "
            f"| {row['of_fma']:.0%} | {row['of_read']:.0%} | {peers or 'none'} | {number(row.get('ratio'))} "
            f"| {'' if low is None else f'{low:.2f} to {high:.2f}'} "
            f"| {number(row.get('ratio_of_fastest'))} | {bar_of(group, row)} | {row['difference']:.0e} |"
        )
    return lines


def verdict(report):
    """The bars over whole groups, and what is not in the tables, in words."""
    lines = []
    for group in report["groups"]:
        for name, bar in group["bar"].items():
            found = group["found"][name]
            if found is not None:
                outcome = "reaches" if group["reached"][name] else "UNDER"
                lines.append(f"{group['title']}: {NAMES[name]} {found:.2f}, {outcome} the bar of {bar:g}")
    for group in report["groups"]:
        for row in group["cases"]:
            lines += [f"left out: {row['label']}: {name}: {why}" for name, why in row.get("left_out", {}).items()]
    lines += [f"WRONG: {name}" for name in report["wrong"]]
    lines += [f"no case in this build: {name}" for name in report["missing"]]
    if report["no_llama"]:
        lines.append(f"llama.cpp: {report['no_llama']}")
    return lines


def models(report):
    lines = ["| format | file, MB | prompt, tokens/s | Quern | ratio | after it, tokens/s | Quern | ratio |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|--:|")
    for row in report["models"]:
        lines.append(
            f"| {row['type']} | {row['bytes'] / 1e6:.0f} | {row['prompt_tokens_per_second']:.4g} "
            f"| {row['quern_prompt_tokens_per_second']:.4g} | {row['prompt_ratio']:.2f} "
            f"| {row['tokens_per_second']:.3g} | {row['quern_tokens_per_second']:.3g} | {row['ratio']:.2f} |"
        )
    return lines


def model_line(report):
    row = report["models"][0]
    return (
        f"llama.cpp (llama-cpp-python {row['version']}) on a Llama of {row['parameters'] / 1e9:.2f} billion random "
        f"parameters, {row['prompt_tokens']} tokens of prompt; `{row['system']}`:"
    )


def text(report):
    """All of it, for a terminal."""
    parts = [[head(report)]]
    parts += [[group["title"], *aligned(rows_of(group))] for group in report["groups"]]
    if report["models"]:
        parts.append([model_line(report), *aligned(models(report))])
    parts.append(verdict(report) + [f"took {report['took_seconds']} s"])
    return "\n\n".join("\n".join(part) for part in parts)


def page(report):
    """The section of docs/peers.md."""
    parts = [
        "## Matrix products",
        f"{head(report)}. Ratio: the better peer's median seconds over ours; `of fastest`: the same of the fastest calls. Every result agrees with the product in f64; "
        "`difference` is ours, as a share of the largest value.",
    ]
    for group in report["groups"]:
        parts += [f"### {group['title'][0].upper()}{group['title'][1:]}", "\n".join(rows_of(group))]
    if report["models"]:
        parts += ["### llama.cpp as a whole", model_line(report), "\n".join(models(report))]
    parts.append("\n".join(f"- {line}" for line in verdict(report)))
    return "\n\n".join(parts)

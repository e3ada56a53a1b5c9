"""The same figures as tables of Markdown and of LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from verify.report.page.facts import accuracies, methods, per_class, verdict_eps
from verify.report.page.numbers import radius, share, time
from verify.report.page.panels import Table, panels
from verify.report.page.sources import Source, Wishes

MARKDOWN = {c: f"\\{c}" for c in "\\`*_{}[]<>#|~"} | {"\n": " ", "\r": " ", "&": "&amp;"}
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "∞": r"$\infty$",
    "–": "--",
    "\n": " ",
    "\r": " ",
}


def tables(sources: Sequence[Source], wishes: Wishes) -> list[Table]:
    """Headline, classes, verdicts; those that the records can fill."""
    headline = accuracies(sources, wishes.eps)
    found = []
    if headline:
        rows = [
            (
                one.source,
                radius(one.eps),
                str(one.count),
                share(one.clean, one.count) if one.labelled else "–",
                share(one.unrefuted, one.count),
                share(one.certified, one.count),
                share(one.gap, one.count),
            )
            for one in headline
        ]
        heads = ("record", "eps", "inputs", "clean", "not refuted", "certified", "undecided")
        found.append(Table("Accuracy", heads, tuple(rows)))
    main = next((s for s in sources if s.bracketed or verdict_eps(s) is not None), None)
    if main is not None and headline:
        lines = [
            (
                line.label,
                str(line.accuracy.count),
                share(line.accuracy.clean, line.accuracy.count) if main.labelled else "–",
                share(line.accuracy.unrefuted, line.accuracy.count),
                share(line.accuracy.certified, line.accuracy.count),
                radius(line.low),
                radius(line.high),
            )
            for line in per_class(main, headline[0].eps)
        ]
        heads = (
            *("class", "inputs", "clean", "not refuted", "certified"),
            *("median certified radius", "median attacked radius"),
        )
        caption = f"Per class, {main.name}, eps {radius(headline[0].eps)}"
        found.append(Table(caption, heads, tuple(lines)))
    if reached := methods(sources):
        cells = [
            (m.source, m.verdict, m.method, str(m.count), time(m.median), time(m.total))
            for m in reached
        ]
        names = ("record", "verdict", "method", "inputs", "median time", "time in all")
        found.append(Table("Verdicts", names, tuple(cells)))
    return [*found, *(table for panel in panels(sources) for table in panel.tables)]


def escaper(table: Mapping[str, str]) -> Callable[[str], str]:
    """Replaces what a format would take for its own."""
    by_code = {ord(character): words for character, words in table.items()}
    return lambda words: words.translate(by_code)


def markdown_tables(sources: Sequence[Source], wishes: Wishes) -> str:
    """Tables for GitHub and others."""
    safe = escaper(MARKDOWN)
    parts = [f"# {safe(wishes.title)}"]
    for table in tables(sources, wishes):
        lines = [
            "| " + " | ".join(map(safe, table.headings)) + " |",
            "| --- |" + " ---: |" * (len(table.headings) - 1),
            *("| " + " | ".join(map(safe, row)) + " |" for row in table.rows),
        ]
        parts += [f"## {safe(table.caption)}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def latex_tables(sources: Sequence[Source], wishes: Wishes) -> str:
    """Tables that need `\\usepackage{booktabs}`."""
    safe = escaper(LATEX)
    parts = [r"% needs \usepackage{booktabs}"]
    for table in tables(sources, wishes):
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{safe(table.caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.headings) - 1)}}}",
            r"\toprule",
            " & ".join(map(safe, table.headings)) + r" \\",
            r"\midrule",
            *(" & ".join(map(safe, row)) + r" \\" for row in table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"

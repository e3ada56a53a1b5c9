"""Records as one page that people look at, and as tables for papers.

from verify.report.page import Source, build_page
html = build_page([Source.read("radius.json")], Wishes())
"""

from verify.report.page.assemble import build_page
from verify.report.page.sources import CertificateCheck, Shown, Source, Wishes
from verify.report.page.texts import latex_tables, markdown_tables

__all__ = [
    "CertificateCheck",
    "Shown",
    "Source",
    "Wishes",
    "build_page",
    "latex_tables",
    "markdown_tables",
]

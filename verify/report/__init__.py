"""Results as data: one record schema for JSON, CSV, tables and plots."""

from verify.report.plots import AccuracyCurves, Brackets, plot_accuracy, plot_brackets
from verify.report.records import (
    BRACKET_FIELDS,
    RECORD_FIELDS,
    RESULT_FIELDS,
    SCHEMA,
    ModelStamp,
    Record,
    Recordable,
    make_record,
    stamp_model,
)
from verify.report.tables import print_record, record_table, summary_text
from verify.report.writers import read_json, write_csv, write_json

__all__ = [
    "BRACKET_FIELDS",
    "RECORD_FIELDS",
    "RESULT_FIELDS",
    "SCHEMA",
    "AccuracyCurves",
    "Brackets",
    "ModelStamp",
    "Record",
    "Recordable",
    "make_record",
    "plot_accuracy",
    "plot_brackets",
    "print_record",
    "read_json",
    "record_table",
    "stamp_model",
    "summary_text",
    "write_csv",
    "write_json",
]

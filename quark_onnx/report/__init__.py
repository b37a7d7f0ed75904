"""Reports: what became of a model, measured, judged and written as a page with its JSON.

`build.report_of` makes a `model_report.ModelReport`, `pages.write_report` writes it; docs/reports.md shows both.
"""

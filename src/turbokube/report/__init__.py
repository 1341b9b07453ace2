"""The report of a run: report.html, report.json and junit.xml from its bundle, which is only read."""

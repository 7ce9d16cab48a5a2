"""The charts of a report. matplotlib draws each one once, for the figure files and for the HTML page."""

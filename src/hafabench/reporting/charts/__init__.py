"""The charts of a report, each drawn once by matplotlib, for the figure files and for the HTML page."""

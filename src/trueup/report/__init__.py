"""The report on a whole run: one HTML page and two CSV files, from the records of its complete stages."""

"""From records to tables, figures and pages. Imports no torch."""

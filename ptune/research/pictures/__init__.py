"""Pictures of results as SVG text, written by ptune itself: the same input gives the same bytes."""

"""The report page of a move: one HTML file that needs no network and no scripts, made from the event stream."""

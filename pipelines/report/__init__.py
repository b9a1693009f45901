"""What a run says about itself: summary.json for machines, an HTML page and a console table for people."""

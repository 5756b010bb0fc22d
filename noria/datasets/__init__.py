"""From documents and traffic to training and test rows: clean, de-duplicate, scrub, split."""

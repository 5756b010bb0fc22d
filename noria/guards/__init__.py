"""Pure detectors: text in, findings out."""

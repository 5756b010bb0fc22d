"""Files of the project that `noria init` makes."""

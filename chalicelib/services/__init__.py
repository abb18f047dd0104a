"""One verb each: parse nothing, render nothing, decide and do."""

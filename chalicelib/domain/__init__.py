"""The words of the product as values and rules: pure, standard library only, the clock is an argument."""

"""Cedar: evaluate, explain, obligations. The only door to cedarpy."""

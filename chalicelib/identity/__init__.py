"""Who vouches: one declaration per issuer, one verifier; our tokens; our signatures. The only door to PyJWT."""

"""What stock pystac does not cover of a STAC API: filters, conformance, transactions."""

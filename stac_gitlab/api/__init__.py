"""What a STAC API can do and stock pystac has no words for."""

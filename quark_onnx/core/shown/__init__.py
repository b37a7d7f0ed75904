"""How values are shown: figures in words, and the cards that notebooks draw. Stands on plain values alone."""

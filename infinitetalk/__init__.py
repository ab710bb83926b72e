"""How pixels are made: a stand-alone, streaming, audio-driven generator. It knows nothing of the other packages."""

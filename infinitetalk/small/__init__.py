"""The small generator: networks that fit a CPU, around the transformer, the stream and the sampler of the engine."""

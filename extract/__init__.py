"""Videos in, cubes out: catalogues, decoding, sampling, views, backbones and the extractor."""

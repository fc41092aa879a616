"""The encoders that can be configured, and how one is chosen (`choice.py`).

``onnx_encoder.py`` runs BERT encoders, the bundled all-MiniLM-L6-v2 among them, in 8 bits and without torch;
``sentence_encoder.py`` runs everything that sentence-transformers can load, on a CPU or a GPU; ``static_encoder.py``
runs tables of word vectors. None of them asks a network.
"""

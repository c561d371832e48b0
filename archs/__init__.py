"""The architectures. One paper, one file; nothing here knows how it will be measured."""

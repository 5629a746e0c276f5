"""From a table to integer codes and scalars in memory-mapped files, with the codecs that read them back."""

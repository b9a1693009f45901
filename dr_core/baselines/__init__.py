"""What Deep Retrieval is compared with, behind one small interface: one file a baseline."""

"""The GATv2 network and its PyTorch Geometric reference."""

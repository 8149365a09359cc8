"""The testing kit, tried by the programs that it is for."""
